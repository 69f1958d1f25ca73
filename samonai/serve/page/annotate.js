// Prompts, undo, removal, carrying, proposals: every change of what is drawn.

import { $, chosen, onFrame, revision, say, state } from "./app.js";
import { api } from "./api.js";
import { masks, showFrame } from "./frame.js";
import { showFiguresSoon } from "./lists.js";
import { goTo, showCases } from "./cases.js";
import { volume } from "./volume.js";

/** @typedef {import("./app.js").FrameObject} FrameObject */

export const newId = () =>
  `o${Date.now().toString(36)}${Math.floor(Math.random() * 1296).toString(36)}`;

/** The chosen object, if it is of the chosen structure: what the next prompt is for. */
export function current() {
  const before = chosen();
  return before && before.value === state.value ? before : null;
}

/**
 * Segments the chosen object anew, or begins one.
 * @param {{box?: number[], click?: number[], outline?: string}} more
 */
export async function prompt({ box, click, outline }) {
  const before = current();
  const fresh = { box: box ?? null, clicks: [], outline: outline ?? null };
  const given = !click ? fresh : {
    box: before?.box ?? null,
    clicks: [...(before?.clicks ?? []), click],
    outline: before?.outline ?? null,
  };
  const o = { object_id: before?.object_id ?? newId(), frame: state.frame };
  say(state.current.ready.includes(state.frame) ? "…" : `Encoding frame ${state.frame + 1} …`);
  const began = performance.now();
  const asked = { value: state.value, ...given, revision: revision() };
  const answer = await api.prompt(state.current.case, o, asked);
  await take(answer, before);
  const ms = Math.round(performance.now() - began);
  if (!state.current.ready.includes(o.frame)) state.current.ready.push(o.frame);
  say(`Expected IoU ${answer.objects[0].iou.toFixed(2)} (${ms} ms)`);
}

/** Takes an answer with one object; undo brings back how it was before. */
export async function take(answer, before, remember = true) {
  const [after] = answer.objects;
  for (const [sha, data] of Object.entries(answer.masks)) await masks.put(sha, data);
  if (remember) push([{ before, after }]);
  put(after);
  state.object = after.object_id;
  await changed(answer, [after.frame]);
  await showFrame();
}

function push(step) {
  state.undo.push(step);
  state.redo = [];
}

/** @param {FrameObject} one @param {FrameObject} other */
const same = (one, other) => one.object_id === other.object_id && one.frame === other.frame;

/** @param {FrameObject} object */
function put(object) {
  const objects = state.current.objects;
  const place = objects.findIndex((one) => same(one, object));
  if (place < 0) objects.push(object);
  else objects[place] = object;
}

/** Takes over the annotation's new revision; the volume follows on the changed frames. */
export async function changed(answer, frames) {
  const { revision: number, state: name, structures } = answer;
  Object.assign(state.current, { revision: number, state: name, structures });
  const listed = state.cases.find((one) => one.case === state.current.case);
  if (listed && listed.state !== name) {
    listed.state = name;
    showCases();
  }
  volume.follow(frames);
  showFiguresSoon();
}

/** Removes one object from one frame, without a way back. @param {FrameObject} object */
async function drop(object) {
  const answer = await api.remove(state.current.case, object, revision());
  state.current.objects = state.current.objects.filter((one) => !same(one, object));
  await changed(answer, [object.frame]);
}

export async function remove() {
  const one = chosen();
  if (!one) return;
  await drop(one);
  push([{ before: one, after: null }]);
  await showFrame();
}

export async function removeEverywhere() {
  const one = chosen();
  if (!one) return;
  const all = state.current.objects.filter((o) => o.object_id === one.object_id);
  const answer = await api.removeAll(state.current.case, one.object_id, revision());
  state.current.objects = state.current.objects.filter((o) => o.object_id !== one.object_id);
  push(all.map((o) => ({ before: o, after: null })));
  await changed(answer, all.map((o) => o.frame));
  await showFrame();
}

/** Takes the last step back ("before"), or the last step that was taken back ("after"). */
export async function step(wanted) {
  const [from, to] = wanted === "before" ? [state.undo, state.redo] : [state.redo, state.undo];
  const last = from.pop();
  if (!last) return;
  to.push(last);
  const frames = last.map((pair) => (pair.before ?? pair.after).frame);
  if (!frames.includes(state.frame)) await goTo(frames[0]);
  for (const pair of last) {
    if (pair[wanted]) {
      const given = { ...pair[wanted], revision: revision() };
      const answer = await api.restore(state.current.case, given);
      for (const [sha, data] of Object.entries(answer.masks)) await masks.put(sha, data);
      put(answer.objects[0]);
      state.object = answer.objects[0].object_id;
      await changed(answer, [answer.objects[0].frame]);
    } else {
      await drop(pair.before ?? pair.after);
    }
  }
  await showFrame();
}

export async function carry() {
  const seed = chosen();
  if (!seed) return;
  say("Carrying …");
  const reach = Number($("reach").value);
  const given = { reach, revision: revision() };
  const answer = await api.carry(state.current.case, seed, given);
  const before = new Map(state.current.objects.map((one) => [`${one.frame} ${one.object_id}`, one]));
  push(answer.objects.map((after) => (
    { before: before.get(`${after.frame} ${after.object_id}`) ?? null, after })));
  await takeMany(answer);
  say(`Carried to ${answer.objects.length} more frames; look at them with the wheel.`);
}

async function takeMany(answer) {
  answer.objects.forEach(put);
  await changed(answer, answer.objects.map((one) => one.frame));
  await showFrame();
}

/** Begins with the given label, as masks to correct. */
export async function begin() {
  const answer = await api.begin(state.current.case, revision());
  await takeMany(answer);
  say(`${answer.objects.length} masks of the given label.`);
}

export async function propose() {
  say("Segmenting …");
  const answer = await api.propose(state.current.case, revision());
  const before = state.current.objects.filter((one) => one.origin === "proposal");
  state.current.objects = state.current.objects.filter((one) => one.origin !== "proposal");
  await takeMany(answer);
  volume.follow(before.map((one) => one.frame));
  state.object ??= onFrame().at(-1)?.object_id ?? null;
  await showFrame();
  say(`${answer.objects.length} proposed masks; A accepts the chosen one, Shift-A all of them.`);
}

/** Accepts the proposals of the chosen object, or all. @param {boolean} all */
export async function accept(all) {
  const answer = await api.accept(state.current.case, all ? null : state.object, revision());
  await takeMany(answer);
  say(`${answer.objects.length} masks accepted.`);
}

/** Dismisses the proposals of the chosen object, or all. @param {boolean} all */
export async function dismiss(all) {
  const answer = await api.dismiss(state.current.case, all ? null : state.object, revision());
  const gone = new Set(answer.objects.map((one) => `${one.frame} ${one.object_id}`));
  state.current.objects = state.current.objects.filter(
    (one) => !gone.has(`${one.frame} ${one.object_id}`));
  await changed(answer, answer.objects.map((one) => one.frame));
  await showFrame();
  say(`${answer.objects.length} proposed masks dismissed.`);
}

export async function nameStructure() {
  const name = $("name").value.trim();
  if (!name) return;
  const value = Math.max(0, ...Object.keys(state.current.structures).map(Number)) + 1;
  const given = { value, name, revision: revision() };
  await changed(await api.structure(state.current.case, given), []);
  $("name").value = "";
  $("name").blur();
  Object.assign(state, { value, object: null });
  await showFrame();
}
