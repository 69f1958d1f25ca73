// Cases: the list, opening one, going from frame to frame, saving, versions.

import { $, after409, change, item, onFrame, say, span, state } from "./app.js";
import { api } from "./api.js";
import { loadImage } from "./masks.js";
import { showFrame, view } from "./frame.js";
import { showFigures, showFiguresSoon } from "./lists.js";
import { showLearning } from "./learn.js";
import { volume } from "./volume.js";

let shown = 0;

export async function refreshCases() {
  state.cases = await api.cases();
  showCases();
}

export function showCases() {
  const wanted = $("search").value.toLowerCase();
  $("cases").replaceChildren(
    ...state.cases
      .filter((one) => `${one.case} ${one.state}`.toLowerCase().includes(wanted))
      .map((one) => {
        const score = one.score === null ? "" : `${one.score.toFixed(2)} `;
        const found = item(
          [one.case, span(`state ${one.state}`, score + one.state)],
          one.case === state.current?.case,
          () => change(() => open(one.case)),
        );
        if (score) found.title = "The model's uncertainty of the case, from 0 to 1";
        return found;
      }),
  );
}

/** Opens a case. @param {string} name @param {number} [frame] */
export async function open(name, frame) {
  say(`Reading ${name} …`);
  const found = await api.open(name);
  Object.assign(state, { current: found, undo: [], redo: [], object: null });
  if (!(state.value in found.structures)) state.value = Number(Object.keys(found.structures)[0]);
  if (!(state.window in found.windows)) state.window = "";
  location.hash = encodeURIComponent(name);
  $("slice").max = found.frames - 1;
  $("carry-box").hidden = !found.volume;
  $("toggle-volume").hidden = !found.volume;
  $("reach").max = Math.max(1, found.frames - 1);
  $("begin").hidden = !found.labelled;
  $("propose").hidden = !state.info.proposes;
  ["left", "right", "top", "bottom"].forEach((side, n) => {
    $(`mark-${side}`).textContent = found.display.marks[n];
  });
  $("saved").textContent = "";
  showWindows();
  const seen = found.objects.map((one) => one.frame);
  await goTo(frame ?? (seen.length ? seen[seen.length >> 1] : found.frames >> 1));
  showCases();
  showFigures();
  showVersions();
  await volume.open(found);
  say(found.failure ?? "Drag a box around an object, or click on it.", Boolean(found.failure));
}
after409.reload = () => open(state.current.case, state.frame);

function showWindows() {
  const names = Object.keys(state.current.windows);
  $("window").replaceChildren(
    ...["", ...names].map((name) => new Option(name || "as the model sees it", name)),
  );
  $("window").value = state.window;
  $("window-box").hidden = !names.length;
}

/** Shows frames in the next window, or in a named one. @param {string} [name] */
export function chooseWindow(name) {
  const names = ["", ...Object.keys(state.current.windows)];
  state.window = name ?? names[(names.indexOf(state.window) + 1) % names.length];
  $("window").value = state.window;
  volume.window(state.current.windows[state.window]);
  return goTo(state.frame);
}

/** Shows a frame; it is encoded before all others. @param {number} frame */
export async function goTo(frame) {
  const current = state.current;
  if (!current) return;
  state.frame = Math.min(Math.max(frame, 0), current.frames - 1);
  $("slice").value = state.frame;
  const number = ++shown;
  const place = api.picture(current.case, state.frame, current.windows[state.window]);
  const picture = await loadImage(place);
  if (number !== shown) return; // another frame was chosen meanwhile
  if (!onFrame().some((one) => one.object_id === state.object)) {
    state.object = onFrame().filter((one) => one.value === state.value).at(-1)?.object_id ?? null;
  }
  view.show(picture, current.display);
  await showFrame();
  volume.goToFrame(state.frame);
  if (current.labelled) showFiguresSoon();
  look();
}

/** Tells the server which frame is looked at, and shows which ones are encoded. */
export function look() {
  const current = state.current;
  return api.view(current.case, state.frame).then(
    (found) => { if (current === state.current) showReady(found); },
    () => {},
  );
}

export function showReady({ ready, failure }) {
  const { display, frames } = state.current;
  state.current.ready = ready;
  const encoded = ready.includes(state.frame) ? "" : ", not encoded yet";
  $("where").textContent = `${display.plane} ${state.frame + 1} / ${frames}${encoded}`.trim();
  if (failure) say(failure, true);
  const canvas = $("ready");
  canvas.width = canvas.clientWidth;
  const context = canvas.getContext("2d");
  const step = canvas.width / state.current.frames;
  const mark = (frame, colour, top, height) => {
    context.fillStyle = colour;
    context.fillRect(frame * step, top, Math.max(1, step), height);
  };
  for (const frame of ready) mark(frame, "#4a6076", 0, 10);
  for (const one of state.current.objects) mark(one.frame, "#e8c46a", 6, 4);
  mark(state.frame, "#ffffff", 0, 3);
  canvas.title = `${ready.length} of ${state.current.frames} frames are encoded`;
}

export async function save() {
  const found = await api.save(state.current.case, state.current.revision);
  Object.assign(state.current, { revision: found.revision, state: "done" });
  state.undo = [];
  state.redo = [];
  const sent = found.send_failure ? `; not sent: ${found.send_failure}` : found.sent ? "; sent" : "";
  $("saved").textContent = `Version ${found.version}: ${found.files.join(", ")}${sent}`;
  await refreshCases();
  await showVersions();
  await showLearning();
  say("Saved. N goes to the next case.");
}

export async function next() {
  const { case: name } = await api.next(state.current?.case);
  if (name === null) say("Every case is done.");
  else await open(name);
}

async function showVersions() {
  const name = state.current.case;
  const found = await api.history(name);
  if (name !== state.current.case) return;
  $("versions").hidden = !found.length;
  $("version-list").replaceChildren(
    ...found.map((one) => {
      const line = document.createElement("li");
      const time = new Date(one.time).toLocaleString();
      const back = document.createElement("button");
      back.textContent = "Go back";
      back.onclick = () => change(() => goBack(one.version));
      const model = [one.model.name, one.model.version].filter(Boolean).join(" ");
      line.append(`${one.version}: ${time}, ${one.user}, ${one.objects} masks`, back);
      line.title = model;
      return line;
    }),
  );
}

async function goBack(version) {
  await api.restoreVersion(state.current.case, version, state.current.revision);
  await open(state.current.case, state.frame);
  await refreshCases();
  say(`The objects of version ${version} are back; save to make them the latest.`);
}
