// A volume in three planes and 3D, drawn by NiiVue (vendor/niivue.js), linked with the frame.
//
// NiiVue counts voxels in a grid that it turns to RAS; places are passed as millimetres only, and
// the file's own indices are worked out here from the affine that the server sends.

import { $, say, state } from "./app.js";
import { api } from "./api.js";
import { goTo } from "./cases.js";
import { colour } from "./masks.js";
import { masks, view } from "./frame.js";

const FOLLOW_MS = 120;

class VolumePanel {
  /** @type {any} */ #viewer = null;
  /** @type {import("./app.js").Case|null} */ #case = null;
  #place = [0, 0, 0];
  #waiting = new Set();
  #timer = 0;
  visible = false;

  /** Shows or hides the panel; NiiVue is loaded the first time. */
  async toggle() {
    this.visible = !this.visible && Boolean(state.current?.volume);
    $("volume-box").hidden = !this.visible;
    if (this.visible) await this.open(state.current);
    else view.cross = null;
    view.draw();
  }

  /** Loads a case's volume and masks. @param {import("./app.js").Case} found */
  async open(found) {
    if (!this.visible) return;
    if (!found.volume) { await this.toggle(); return; }
    if (!(await this.#start())) return;
    this.#case = null;
    $("volume-note").textContent = "Loading the volume …";
    const [low, high] = found.windows[state.window] ?? Object.values(found.windows)[0];
    await this.#viewer.loadVolumes([
      { url: api.volume(found.case), name: "volume.nii", cal_min: low, cal_max: high },
      { url: api.label(found.case, found.revision), name: "label.nii.gz", opacity: view.opacity },
    ]);
    this.#case = found;
    this.#colours();
    this.#viewer.updateGLVolume();
    $("volume-note").textContent = "";
    this.#place = found.grid.shape.map((n) => n >> 1);
    this.goToFrame(state.frame);
  }

  /** Makes the viewer, unless it is there. @returns {Promise<boolean>} */
  async #start() {
    if (this.#viewer) return true;
    if (!document.createElement("canvas").getContext("webgl2")) {
      $("volume-note").textContent =
        "This browser has no WebGL 2: three planes and 3D are not shown. All else works.";
      return false;
    }
    const { MULTIPLANAR_TYPE, Niivue, SHOW_RENDER } = await import("./vendor/niivue.js");
    const viewer = new Niivue({
      isRadiologicalConvention: true, // the patient's right on the left, as beside it
      multiplanarShowRender: SHOW_RENDER.ALWAYS,
      isOrientationTextVisible: true,
      show3Dcrosshair: true,
      backColor: [0, 0, 0, 1],
      loadingText: "",
      logLevel: "error",
    });
    await viewer.attachToCanvas($("volume"));
    viewer.setSliceType(viewer.sliceTypeMultiplanar);
    viewer.setMultiplanarLayout(MULTIPLANAR_TYPE.GRID);
    viewer.onLocationChange = (place) => this.#moved(place.mm);
    this.#viewer = viewer;
    return true;
  }

  #colours() {
    const values = Object.keys(this.#case.structures).map(Number);
    const all = [0, ...values];
    const channel = (n) => all.map((value) => (value ? colour(value)[n] : 0));
    this.#viewer.volumes[1].setColormapLabel({
      R: channel(0), G: channel(1), B: channel(2), A: all.map((value) => (value ? 255 : 0)), I: all,
      labels: all.map((value) => this.#case.structures[value] ?? ""),
    });
  }

  /** Repeats the masks of frames in the volume, soon after the frame itself shows them. */
  follow(frames) {
    if (!this.visible || !this.#case) return;
    for (const frame of frames) this.#waiting.add(frame);
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#write(), FOLLOW_MS);
  }

  async #write() {
    const found = this.#case;
    const frames = [...this.#waiting];
    this.#waiting.clear();
    if (!found || found !== state.current) return;
    for (const frame of frames) await this.#writeFrame(found, frame);
    this.#colours(); // there may be a new structure
    this.#viewer.updateGLVolume();
  }

  async #writeFrame(found, frame) {
    const { shape, axis, start } = found.grid;
    const [columns, rows] = [0, 1, 2].filter((n) => n !== axis);
    const steps = [1, shape[0], shape[0] * shape[1]]; // the first index runs fastest
    const image = this.#viewer.volumes[1].img;
    const [height, width] = found.size;
    const label = new Uint8Array(width * height);
    for (const one of found.objects.filter((o) => o.frame === frame)) {
      const { inside } = await masks.inside(found.case, one.mask);
      for (let n = 0; n < inside.length; n++) if (inside[n]) label[n] = one.value;
    }
    for (let y = 0; y < height; y++) {
      for (let x = 0; x < width; x++) {
        const place = frame * steps[axis] + (x + start[columns]) * steps[columns] +
          (y + start[rows]) * steps[rows];
        image[place] = label[y * width + x];
      }
    }
  }

  /** @param {number[]|undefined} range Black and white. */
  window(range) {
    if (!this.visible || !this.#case) return;
    const [low, high] = range ?? Object.values(this.#case.windows)[0];
    Object.assign(this.#viewer.volumes[0], { cal_min: low, cal_max: high });
    this.#viewer.updateGLVolume();
  }

  /** @param {number} opacity From 0 to 1. */
  opacity(opacity) {
    if (this.visible && this.#case) this.#viewer.setOpacity(1, opacity);
  }

  /** Moves the crosshair to the visible frame. @param {number} frame */
  goToFrame(frame) {
    if (!this.visible || !this.#case) return;
    this.#place[this.#case.grid.axis] = frame;
    this.#point();
  }

  /** Moves the crosshair to a point of the visible frame. @param {number} x @param {number} y */
  goToPoint(x, y) {
    if (!this.visible || !this.#case) return;
    const { axis, start, shape } = this.#case.grid;
    const [columns, rows] = [0, 1, 2].filter((n) => n !== axis);
    const limited = (n, side) => Math.min(Math.max(Math.floor(n) + start[side], 0), shape[side] - 1);
    this.#place[columns] = limited(x, columns);
    this.#place[rows] = limited(y, rows);
    this.#place[axis] = state.frame;
    this.#point();
  }

  /** The voxel under the crosshair, in the file's own indices. */
  get place() {
    return [...this.#place];
  }

  #point() {
    const mm = this.#toMm().transformPoint(new DOMPoint(...this.#place));
    this.#viewer.scene.crosshairPos = this.#viewer.mm2frac([mm.x, mm.y, mm.z]);
    this.#viewer.drawScene();
    this.#cross();
  }

  #moved([x, y, z]) {
    if (!this.#case || this.#case !== state.current) return;
    const voxel = this.#toMm().inverse().transformPoint(new DOMPoint(x, y, z));
    const { shape, axis } = this.#case.grid;
    this.#place = [voxel.x, voxel.y, voxel.z].map((n, side) =>
      Math.min(Math.max(Math.round(n), 0), shape[side] - 1));
    this.#cross();
    if (this.#place[axis] !== state.frame) goTo(this.#place[axis]).catch((error) => say(error.message, true));
  }

  #cross() {
    const { axis, start } = this.#case.grid;
    const [columns, rows] = [0, 1, 2].filter((n) => n !== axis);
    view.cross = [
      this.#place[columns] - start[columns] + 0.5, this.#place[rows] - start[rows] + 0.5];
    view.draw();
  }

  #toMm() {
    return new DOMMatrix([0, 1, 2, 3].flatMap((c) => this.#case.grid.affine.map((row) => row[c])));
  }

  /** The label under a voxel of the file, for scripts and tests. */
  labelAt([i, j, k]) {
    const { shape } = this.#case.grid;
    return this.#viewer.volumes[1].img[i + shape[0] * (j + shape[1] * k)];
  }

  /** @returns {any} NiiVue itself, for scripts and tests. */
  get viewer() {
    return this.#viewer;
  }
}

export const volume = new VolumePanel();
