// The lists beside the frame: structures with their figures, and objects on the frame.

import { $, change, chosen, item, onFrame, span, state } from "./app.js";
import { api } from "./api.js";
import { css } from "./masks.js";
import { showFrame } from "./frame.js";

let figures = {};
let timer = 0;

/** @param {number} value */
function swatch(value) {
  const found = span("swatch", "");
  found.style.background = css(value);
  return found;
}

export function showStructures() {
  $("structures").replaceChildren(
    ...Object.entries(state.current.structures).map(([value, name]) => {
      const drawn = state.current.objects.some((one) => one.value === Number(value));
      const { ml, dice, dice_here: here } = (drawn && figures[name]) || {};
      const facts = [
        ml ? `${ml.toFixed(1)} ml` : "",
        here === undefined ? "" : `Dice ${here.toFixed(2)} here`,
        dice === undefined ? "" : here === undefined ? `Dice ${dice.toFixed(2)}` : dice.toFixed(2),
      ].filter(Boolean).join(", ");
      const line = item([swatch(Number(value)), `${value} ${name}`, span("state", facts)],
        Number(value) === state.value, () => chooseStructure(Number(value)));
      line.title = "Volume; Dice against the given label on this frame, and on the whole case";
      return line;
    }),
  );
}

/** @param {number} value */
export function chooseStructure(value) {
  if (!(value in state.current.structures)) return;
  state.value = value;
  state.object = onFrame().filter((one) => one.value === value).at(-1)?.object_id ?? null;
  change(showFrame);
}

export function showObjects() {
  $("objects").replaceChildren(
    ...onFrame().map((one, number) => {
      const iou = one.iou === null ? "" : ` ${one.iou.toFixed(2)}`;
      const name = `${number + 1} ${state.current.structures[one.value]}`;
      return item([swatch(one.value), name, span(`state ${one.origin}`, one.origin + iou)],
        one.object_id === state.object, () => chooseObject(one));
    }),
  );
  const one = chosen();
  for (const id of ["remove", "remove-all", "carry"]) $(id).disabled = !one;
  const pending = state.current.objects.filter((o) => o.origin === "proposal");
  $("proposals").hidden = !pending.length;
  $("pending").textContent = `${pending.length} masks are proposed; save needs them decided.`;
  for (const id of ["accept", "dismiss"]) $(id).disabled = one?.origin !== "proposal";
}

function chooseObject(one) {
  Object.assign(state, { object: one.object_id, value: one.value });
  change(showFrame);
}

/** Chooses the object on the frame after the chosen one. */
export function nextObject() {
  const all = onFrame();
  const place = all.findIndex((one) => one.object_id === state.object);
  if (all.length) chooseObject(all[(place + 1) % all.length]);
}

export function showFiguresSoon() {
  clearTimeout(timer);
  timer = setTimeout(showFigures, 700);
}

export async function showFigures() {
  const { current, frame } = state;
  const found = await api.figures(current.case, frame).catch(() => ({}));
  if (current !== state.current || frame !== state.frame) return;
  figures = found;
  showStructures();
}
