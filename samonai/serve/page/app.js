// What the page's modules share: the state, the line of messages, and one change after the other.

import { ApiError } from "./api.js";

/**
 * One object on one frame, as the server keeps it.
 * @typedef {{object_id: string, frame: number, value: number, mask: string, box: number[]|null,
 *   clicks: number[][], iou: number|null, origin: string, outline: string|null}} FrameObject
 */

/**
 * One case, as the server describes it.
 * @typedef {{case: string, frames: number, size: number[], volume: boolean, revision: number,
 *   state: string, labelled: boolean, ready: number[], failure: string|null,
 *   display: {transpose: boolean, flip_x: boolean, flip_y: boolean, aspect: number,
 *     marks: string[], plane: string},
 *   grid: {shape: number[], axis: number, start: number[], affine: number[][]}|null,
 *   windows: Object<string, number[]>, structures: Object<string, string>,
 *   objects: FrameObject[]}} Case
 */

/** @type {(id: string) => any} */
export const $ = (id) => document.getElementById(id);

export const state = {
  /** @type {any} */ info: null,
  /** @type {{case: string, state: string, score: number|null}[]} */ cases: [],
  /** @type {Case|null} */ current: null,
  frame: 0,
  value: 1,
  /** @type {string|null} */ object: null,
  tool: "prompt",
  hidden: false,
  uncertain: false,
  /** Name of the window that frames are shown in; "": as the model sees them. */
  window: "",
  /** Steps that can be taken back, each a list of objects before and after.
   * @type {{before: FrameObject|null, after: FrameObject|null}[][]} */
  undo: [],
  redo: [],
  busy: Promise.resolve(),
};

/** Shows a line below the frame. @param {string} text @param {boolean} error */
export function say(text, error = false) {
  $("message").textContent = text;
  $("message").className = error ? "error" : "";
}

/** Set by the module that opens cases: loads the case again after a change in another tab. */
export const after409 = { reload: async () => {} };

/**
 * Runs changes one after the other, and tells what went wrong.
 * @param {() => any} action
 */
export function change(action) {
  state.busy = state.busy.then(action).catch(async (error) => {
    say(error.message, true);
    if (error instanceof ApiError && error.status === 409) {
      await after409.reload();
      say(error.message, true);
    }
  });
  return state.busy;
}

/** Objects on the visible frame, in drawing order. @returns {FrameObject[]} */
export const onFrame = () => state.current.objects.filter((one) => one.frame === state.frame);

/** The chosen object on the visible frame. @returns {FrameObject|null} */
export const chosen = () => onFrame().find((one) => one.object_id === state.object) ?? null;

export const revision = () => state.current.revision;

/** @param {string} className @param {string} text */
export function span(className, text) {
  const found = document.createElement("span");
  found.className = className;
  found.textContent = text;
  return found;
}

/** A line of a list that is chosen by a click or with Enter. */
export function item(parts, isChosen, action) {
  const found = document.createElement("li");
  found.className = isChosen ? "chosen" : "";
  found.tabIndex = 0;
  found.append(...parts);
  found.onclick = action;
  found.onkeydown = (event) => {
    if (event.key !== "Enter") return;
    event.stopPropagation();
    action();
  };
  return found;
}
