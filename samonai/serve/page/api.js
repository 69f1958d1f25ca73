// Requests to the server, relative to the page, so that a secret path prefix is kept.

export class ApiError extends Error {
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

async function request(method, path, body) {
  const options = { method };
  if (body !== undefined) {
    options.headers = { "content-type": "application/json" };
    options.body = JSON.stringify(body);
  }
  let answer;
  try {
    answer = await fetch(`api/${path}`, options);
  } catch {
    throw new ApiError(0, "the server does not answer; is it still running?");
  }
  const found = await answer.json().catch(() => ({ detail: answer.statusText }));
  if (!answer.ok) throw new ApiError(answer.status, found.detail ?? answer.statusText);
  return found;
}

const name = encodeURIComponent;
const at = (c, frame) => `cases/${name(c)}/frames/${frame}`;

export const api = {
  info: () => request("GET", "info"),
  cases: () => request("GET", "cases"),
  next: (after) => request("GET", `next?after=${name(after ?? "")}`),
  open: (c) => request("GET", `cases/${name(c)}`),
  figures: (c) => request("GET", `cases/${name(c)}/figures`),
  view: (c, frame) => request("POST", `cases/${name(c)}/view`, { frame }),
  prompt: (c, o, given) => request("PUT", `${at(c, o.frame)}/objects/${name(o.object_id)}`, given),
  paint: (c, o, given) =>
    request("PUT", `${at(c, o.frame)}/objects/${name(o.object_id)}/paint`, given),
  restore: (c, given) => request("POST", `cases/${name(c)}/restore`, given),
  remove: (c, o, revision) =>
    request("DELETE", `${at(c, o.frame)}/objects/${name(o.object_id)}`, { revision }),
  removeAll: (c, id, revision) =>
    request("DELETE", `cases/${name(c)}/objects/${name(id)}`, { revision }),
  carry: (c, o, given) =>
    request("POST", `${at(c, o.frame)}/objects/${name(o.object_id)}/carry`, given),
  propose: (c, revision) => request("POST", `cases/${name(c)}/propose`, { revision }),
  begin: (c, revision) => request("POST", `cases/${name(c)}/begin`, { revision }),
  structure: (c, given) => request("POST", `cases/${name(c)}/structures`, given),
  save: (c, revision) => request("POST", `cases/${name(c)}/save`, { revision, done: true }),
  learning: () => request("GET", "learn"),
  train: () => request("POST", "learn"),
  stop: () => request("DELETE", "learn"),
  back: () => request("POST", "learn/back"),
  picture: (c, frame) => `api/${at(c, frame)}.png`,
  mask: (c, sha) => `api/cases/${name(c)}/masks/${sha}.png`,
};
