// The visible frame: picture, masks, prompts, uncertainty, and the lists beside it.

import { $, chosen, onFrame, state } from "./app.js";
import { api } from "./api.js";
import { loadImage, heat, MaskCache } from "./masks.js";
import { showObjects, showStructures } from "./lists.js";
import { showReady } from "./cases.js";
import { View } from "./view.js";

export const masks = new MaskCache();
export const view = new View($("view"));

export async function showFrame() {
  const contour = $("contours").checked;
  const drawn = state.hidden ? [] : onFrame();
  const { case: name } = state.current;
  const overlays = await Promise.all(
    drawn.map((one) => masks.overlay(name, one.mask, one.value, contour)),
  );
  view.overlays = overlays;
  view.heat = await uncertainty();
  const one = chosen();
  view.prompts = { box: one?.box ?? null, clicks: one?.clicks ?? [] };
  view.draw();
  showObjects();
  showStructures();
  $("undo").disabled = !state.undo.length;
  $("redo").disabled = !state.redo.length;
  showReady({ ready: state.current.ready });
}

/** The uncertainty of the frame as a canvas; null where no model has said anything of it. */
async function uncertainty() {
  const known = state.info.proposes || onFrame().some((one) => one.origin === "prompt");
  $("heat-note").hidden = !state.uncertain;
  $("heat-note").textContent = known ? "Uncertainty: yellow to red, 1 bit" : "No uncertainty known";
  if (!state.uncertain || !known) return null;
  const { case: name, revision } = state.current;
  const image = await loadImage(api.uncertainty(name, state.frame, revision)).catch(() => null);
  return image && heat(image);
}
