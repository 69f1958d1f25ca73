// Strokes on the frame: a brush and an eraser that change a mask, and an outline as a prompt.

import { $, change, state } from "./app.js";
import { api } from "./api.js";
import { current, newId, prompt, take } from "./annotate.js";
import { masks, view } from "./frame.js";
import { filled, pngOf, white } from "./masks.js";

let stroke = null;

/**
 * One step of a stroke.
 * @param {number[]} point In frame space.
 * @param {"begin"|"go on"|"end"} phase
 */
export async function drawStroke(point, phase) {
  if (state.tool === "lasso") outline(point, phase);
  else await paint(point, phase);
}

function outline(point, phase) {
  view.path = phase === "begin" ? [point] : [...(view.path ?? []), point];
  if (phase === "end") {
    const path = view.path;
    view.path = null;
    change(async () => {
      const mask = filled(path, view.picture.naturalWidth, view.picture.naturalHeight);
      if (!mask.inside.some(Boolean)) throw new Error("Draw around the object in one stroke.");
      await prompt({ outline: await pngOf(mask) });
    });
  }
  view.draw();
}

async function paint(point, phase) {
  if (phase === "begin") {
    const painted = current();
    const { naturalWidth: width, naturalHeight: height } = view.picture;
    const begun = { width, height, painted, points: [point], inside: null, last: point };
    stroke = begun;
    const from = painted && (await masks.inside(state.current.case, painted.mask));
    begun.inside = from ? from.inside.slice() : new Uint8Array(width * height);
    for (const waiting of begun.points) dab(begun, waiting);
    return;
  }
  const begun = stroke;
  if (!begun) return;
  if (begun.inside) dab(begun, point);
  else begun.points.push(point); // the mask is being read
  if (phase === "end") {
    stroke = null;
    change(() => keep(begun));
  }
}

function dab(begun, point) {
  const { width, height, inside, last } = begun;
  const radius = Number($("size").value) / 2;
  const fill = state.tool === "brush" ? 1 : 0;
  const steps = Math.max(1, Math.ceil(Math.hypot(point[0] - last[0], point[1] - last[1])));
  for (let n = 0; n <= steps; n++) {
    const cx = last[0] + ((point[0] - last[0]) * n) / steps;
    const cy = last[1] + ((point[1] - last[1]) * n) / steps;
    for (let y = Math.max(0, Math.floor(cy - radius)); y <= Math.min(height - 1, cy + radius); y++) {
      for (let x = Math.max(0, Math.floor(cx - radius)); x <= Math.min(width - 1, cx + radius); x++) {
        // The centre of a pixel lies half a pixel behind its corner.
        if (Math.hypot(x + 0.5 - cx, y + 0.5 - cy) <= radius) inside[y * width + x] = fill;
      }
    }
  }
  begun.last = point;
  if (begun.drawing) return;
  begun.drawing = true; // once per picture of the screen, however many movements there are
  requestAnimationFrame(() => {
    begun.drawing = false;
    if (stroke !== begun) return;
    view.overlays = [white(begun)];
    view.draw();
  });
}

async function keep({ width, height, inside, painted }) {
  const o = { object_id: painted?.object_id ?? newId(), frame: state.frame };
  const png = await pngOf({ width, height, inside });
  const given = { value: state.value, png, revision: state.current.revision };
  await take(await api.paint(state.current.case, o, given), painted);
}
