// Requests to the server, relative to the page, so that a secret path prefix is kept.

/** An answer that is no success. */
export class ApiError extends Error {
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

/**
 * Sends a request, and returns the JSON of the answer.
 * @param {string} method @param {string} path @param {Object} [body]
 */
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
  figures: (c, frame) => request("GET", `cases/${name(c)}/figures?frame=${frame}`),
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
  accept: (c, object, revision) => request("POST", `cases/${name(c)}/accept`, { object, revision }),
  dismiss: (c, object, revision) =>
    request("POST", `cases/${name(c)}/dismiss`, { object, revision }),
  begin: (c, revision) => request("POST", `cases/${name(c)}/begin`, { revision }),
  structure: (c, given) => request("POST", `cases/${name(c)}/structures`, given),
  save: (c, revision) => request("POST", `cases/${name(c)}/save`, { revision, done: true }),
  history: (c) => request("GET", `cases/${name(c)}/history`),
  restoreVersion: (c, version, revision) =>
    request("POST", `cases/${name(c)}/history/${version}`, { revision }),
  learning: () => request("GET", "learn"),
  train: () => request("POST", "learn"),
  stop: () => request("DELETE", "learn"),
  back: () => request("POST", "learn/back"),
  /** @param {number[]} [window] Black and white; left out: as the model sees the frame. */
  picture: (c, frame, window) =>
    `api/${at(c, frame)}.png${window ? `?low=${window[0]}&high=${window[1]}` : ""}`,
  uncertainty: (c, frame, revision) => `api/${at(c, frame)}/uncertainty.png?revision=${revision}`,
  mask: (c, sha) => `api/cases/${name(c)}/masks/${sha}.png`,
  volume: (c) => `api/cases/${name(c)}/volume.nii`,
  label: (c, revision) => `api/cases/${name(c)}/label.nii.gz?revision=${revision}`,
};
