// Masks as coloured overlays: PNG files of 0 and 255 in frame space, cached by their hash.

import { api } from "./api.js";

const COLOURS = [
  [79, 179, 165], [232, 138, 98], [148, 134, 222], [226, 196, 84], [98, 164, 226],
  [214, 110, 160], [140, 200, 110], [200, 160, 130], [120, 205, 214],
];
const MOST = 400;

export const colour = (value) => COLOURS[(value - 1) % COLOURS.length];
export const css = (value) => `rgb(${colour(value).join(",")})`;

/** @param {string} url @returns {Promise<HTMLImageElement>} */
export async function loadImage(url) {
  const image = new Image();
  image.src = url;
  await image.decode();
  return image;
}

/** @typedef {{width: number, height: number, inside: Uint8Array}} Mask */

/** Masks by the hash of their PNG, and the coloured canvases made of them. */
export class MaskCache {
  /** @type {Map<string, Mask>} */ #alphas = new Map();
  #overlays = new Map(); // by mask, colour and contour

  // Keeps a mask that came with an answer, so that it is not fetched.
  async put(sha, base64) {
    if (!this.#alphas.has(sha)) await this.#read(sha, `data:image/png;base64,${base64}`);
  }

  async overlay(caseId, sha, value, contour) {
    const key = `${sha} ${value} ${contour}`;
    if (!this.#overlays.has(key)) {
      const mask = await this.inside(caseId, sha);
      this.#overlays.set(key, paint(mask, colour(value), contour));
      forget(this.#overlays);
    }
    return this.#overlays.get(key);
  }

  async inside(caseId, sha) {
    if (!this.#alphas.has(sha)) await this.#read(sha, api.mask(caseId, sha));
    return this.#alphas.get(sha);
  }

  async #read(sha, url) {
    const image = await loadImage(url);
    const canvas = new OffscreenCanvas(image.naturalWidth, image.naturalHeight);
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.drawImage(image, 0, 0);
    const { data } = context.getImageData(0, 0, canvas.width, canvas.height);
    const inside = new Uint8Array(canvas.width * canvas.height);
    for (let n = 0; n < inside.length; n++) inside[n] = data[4 * n] > 127 ? 1 : 0;
    this.#alphas.set(sha, { width: canvas.width, height: canvas.height, inside });
    forget(this.#alphas);
  }
}

function forget(map) {
  while (map.size > MOST) map.delete(map.keys().next().value);
}

function paint({ width, height, inside }, [r, g, b], contour) {
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d");
  const picture = context.createImageData(width, height);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const n = y * width + x;
      if (!inside[n] || (contour && !onBorder(inside, x, y, width, height))) continue;
      picture.data.set([r, g, b, 255], 4 * n);
    }
  }
  context.putImageData(picture, 0, 0);
  return canvas;
}

function onBorder(inside, x, y, width, height) {
  if (x === 0 || y === 0 || x === width - 1 || y === height - 1) return true;
  const n = y * width + x;
  return !(inside[n - 1] && inside[n + 1] && inside[n - width] && inside[n + width]);
}

/** A mask in white, while it is being painted. */
export const white = (mask) => paint(mask, [255, 255, 255], false);

/** A grey picture of 0..1 bit of entropy as yellow to red, clear where the model is certain. */
export function heat(image) {
  const canvas = new OffscreenCanvas(image.naturalWidth, image.naturalHeight);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(image, 0, 0);
  const picture = context.getImageData(0, 0, canvas.width, canvas.height);
  for (let n = 0; n < picture.data.length; n += 4) {
    const bits = picture.data[n];
    picture.data.set([255, 220 - 0.8 * bits, 60 - 0.2 * bits, Math.min(230, 1.2 * bits)], n);
  }
  context.putImageData(picture, 0, 0);
  return canvas;
}

/**
 * The inside of a closed path, with the pixels whose centres lie within it.
 * @param {number[][]} path @param {number} width @param {number} height
 */
export function filled(path, width, height) {
  const shape = new Path2D();
  for (const [x, y] of path) shape.lineTo(x, y);
  shape.closePath();
  const context = new OffscreenCanvas(1, 1).getContext("2d");
  const inside = new Uint8Array(width * height);
  const xs = path.map(([x]) => x);
  const ys = path.map(([, y]) => y);
  const rows = [Math.max(0, Math.floor(Math.min(...ys))), Math.min(height, Math.ceil(Math.max(...ys)))];
  const columns = [Math.max(0, Math.floor(Math.min(...xs))), Math.min(width, Math.ceil(Math.max(...xs)))];
  for (let y = rows[0]; y < rows[1]; y++) {
    for (let x = columns[0]; x < columns[1]; x++) {
      if (context.isPointInPath(shape, x + 0.5, y + 0.5)) inside[y * width + x] = 1;
    }
  }
  return { width, height, inside };
}

/** A mask as the base64 of a PNG. @returns {Promise<string>} */
export async function pngOf({ width, height, inside }) {
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d");
  const picture = context.createImageData(width, height);
  for (let n = 0; n < inside.length; n++) {
    const v = inside[n] ? 255 : 0;
    picture.data.set([v, v, v, 255], 4 * n);
  }
  context.putImageData(picture, 0, 0);
  const bytes = new Uint8Array(await (await canvas.convertToBlob({ type: "image/png" })).arrayBuffer());
  let text = "";
  for (let n = 0; n < bytes.length; n += 8192) text += String.fromCharCode(...bytes.subarray(n, n + 8192));
  return btoa(text);
}
