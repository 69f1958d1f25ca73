// The page: cases, frames, prompts, undo, saving and training over the server's API.

import { api, ApiError } from "./api.js";
import { css, loadImage, MaskCache, pngOf } from "./masks.js";
import { View } from "./view.js";

const $ = (id) => document.getElementById(id);
const POLL_MS = 2500;

const masks = new MaskCache();
const state = {
  info: null, cases: [], current: null, frame: 0, value: 1, object: null, tool: "prompt",
  hidden: false, undo: [], redo: [], busy: Promise.resolve(), stroke: null, shown: 0,
};

const view = new View($("view"), {
  box: (box) => change(() => prompt({ box })),
  click: (x, y, sign) => change(() => prompt({ click: [x, y, sign] })),
  stroke: (point, phase) => paintStroke(point, phase),
  wheel: (step) => goTo(state.frame + step),
});
view.painting = () => state.tool !== "prompt";

function say(text, error = false) {
  $("message").textContent = text;
  $("message").className = error ? "error" : "";
}

// Runs changes one after the other, and tells what went wrong.
function change(action) {
  state.busy = state.busy.then(action).catch(async (error) => {
    say(error.message, true);
    if (error instanceof ApiError && error.status === 409) await open(state.current.case, state.frame);
  });
  return state.busy;
}

// --- cases -------------------------------------------------------------------------------------

async function refreshCases() {
  state.cases = await api.cases();
  showCases();
}

function showCases() {
  const wanted = $("search").value.toLowerCase();
  $("cases").replaceChildren(
    ...state.cases
      .filter((one) => one.case.toLowerCase().includes(wanted))
      .map((one) => {
        const item = document.createElement("li");
        item.className = one.case === state.current?.case ? "chosen" : "";
        item.append(one.case, span(`state ${one.state}`, one.state));
        item.onclick = () => change(() => open(one.case));
        return item;
      }),
  );
}

function span(className, text) {
  const found = document.createElement("span");
  found.className = className;
  found.textContent = text;
  return found;
}

async function open(name, frame) {
  say(`Reading ${name} …`);
  const found = await api.open(name);
  state.current = found;
  state.undo = [];
  state.redo = [];
  state.object = null;
  state.value = Math.min(state.value, Math.max(1, ...Object.keys(found.structures).map(Number)));
  location.hash = encodeURIComponent(name);
  $("slice").max = found.frames - 1;
  $("carry-box").hidden = !found.volume;
  $("reach").max = Math.max(1, found.frames - 1);
  $("begin").hidden = !found.labelled;
  $("propose").hidden = !state.info.proposes;
  $("mark-left").textContent = found.display.marks[0];
  $("mark-right").textContent = found.display.marks[1];
  $("mark-top").textContent = found.display.marks[2];
  $("mark-bottom").textContent = found.display.marks[3];
  const seen = found.objects.map((one) => one.frame);
  await goTo(frame ?? (seen.length ? seen[seen.length >> 1] : found.frames >> 1));
  showCases();
  showFigures();
  say(found.failure ?? "Drag a box around an object, or click on it.", Boolean(found.failure));
}

// --- frames ------------------------------------------------------------------------------------

async function goTo(frame) {
  const current = state.current;
  if (!current) return;
  state.frame = Math.min(Math.max(frame, 0), current.frames - 1);
  $("slice").value = state.frame;
  const number = ++state.shown;
  const picture = await loadImage(api.picture(current.case, state.frame));
  if (number !== state.shown) return; // another frame was chosen meanwhile
  if (!onFrame().some((one) => one.object_id === state.object)) {
    state.object = onFrame().filter((one) => one.value === state.value).at(-1)?.object_id ?? null;
  }
  view.show(picture, current.display);
  await showFrame();
  api.view(current.case, state.frame).then(showReady, () => {});
}

const onFrame = () => state.current.objects.filter((one) => one.frame === state.frame);
const chosen = () => onFrame().find((one) => one.object_id === state.object) ?? null;

async function showFrame() {
  const contour = $("contours").checked;
  const drawn = state.hidden ? [] : onFrame();
  const name = state.current.case;
  view.overlays = await Promise.all(
    drawn.map((one) => masks.overlay(name, one.mask, one.value, contour)),
  );
  const one = chosen();
  view.prompts = { box: one?.box ?? null, clicks: one?.clicks ?? [] };
  view.draw();
  showObjects();
  showStructures();
  $("where").textContent = `${state.current.display.plane} ${state.frame + 1} / ${state.current.frames}`;
  $("undo").disabled = !state.undo.length;
  $("redo").disabled = !state.redo.length;
  showReady({ ready: state.current.ready });
}

function showReady({ ready, failure }) {
  state.current.ready = ready;
  if (failure) say(failure, true);
  const canvas = $("ready");
  canvas.width = canvas.clientWidth;
  const context = canvas.getContext("2d");
  const step = canvas.width / state.current.frames;
  context.fillStyle = "#3d4b5b";
  for (const frame of ready) context.fillRect(frame * step, 0, Math.max(1, step), 6);
  context.fillStyle = "#e8c46a";
  for (const one of state.current.objects) context.fillRect(one.frame * step, 3, Math.max(1, step), 3);
}

// --- prompts -----------------------------------------------------------------------------------

function newId() {
  return `o${Date.now().toString(36)}${Math.floor(Math.random() * 1296).toString(36)}`;
}

async function prompt({ box, click }) {
  const before = chosen();
  const prompted = before && before.value === state.value ? before : null;
  // Without one of the chosen structure on this frame, a prompt begins an object.
  const id = prompted?.object_id ?? newId();
  const o = { object_id: id, frame: state.frame };
  const clicks = click ? [...(prompted?.clicks ?? []), click] : [];
  const given = { value: state.value, box: box ?? prompted?.box ?? null, clicks };
  say(state.current.ready.includes(state.frame) ? "…" : `Encoding frame ${state.frame + 1} …`);
  const began = performance.now();
  const answer = await api.prompt(state.current.case, o, { ...given, revision: revision() });
  await take(answer, prompted);
  const ms = Math.round(performance.now() - began);
  say(`Expected IoU ${answer.objects[0].iou.toFixed(2)} (${ms} ms)`);
}

const revision = () => state.current.revision;

// Takes an answer with one object, and remembers how it was before, for undo.
async function take(answer, before, remember = true) {
  const [after] = answer.objects;
  for (const [sha, data] of Object.entries(answer.masks)) await masks.put(sha, data);
  if (remember) push({ before, after });
  put(after);
  await changed(answer);
  state.object = after.object_id;
  await showFrame();
}

function push(step) {
  state.undo.push(step);
  state.redo = [];
}

function put(object) {
  const objects = state.current.objects;
  const place = objects.findIndex((one) => same(one, object));
  if (place < 0) objects.push(object);
  else objects[place] = object;
}

const same = (one, other) => one.object_id === other.object_id && one.frame === other.frame;

async function changed(answer) {
  Object.assign(state.current, {
    revision: answer.revision, state: answer.state, structures: answer.structures,
  });
  const listed = state.cases.find((one) => one.case === state.current.case);
  if (listed && listed.state !== answer.state) {
    listed.state = answer.state;
    showCases();
  }
  showFiguresSoon();
}

async function removeObject(object, remember = true) {
  const answer = await api.remove(state.current.case, object, revision());
  state.current.objects = state.current.objects.filter((one) => !same(one, object));
  if (remember) push({ before: object, after: null });
  await changed(answer);
  await showFrame();
}

async function step(from, to, wanted) {
  const last = from.pop();
  if (!last) return;
  const object = last[wanted];
  const other = last[wanted === "before" ? "after" : "before"];
  if (state.frame !== (object ?? other).frame) await goTo((object ?? other).frame);
  if (object) {
    const answer = await api.restore(state.current.case, { ...object, revision: revision() });
    await take(answer, null, false);
  } else {
    await removeObject(other, false);
  }
  to.push(last);
  await showFrame();
}

// --- brush -------------------------------------------------------------------------------------

async function paintStroke(point, phase) {
  if (phase === "begin") {
    const before = chosen();
    const painted = before && before.value === state.value ? before : null;
    const { naturalWidth: width, naturalHeight: height } = view.picture;
    const from = painted && (await masks.inside(state.current.case, painted.mask));
    const inside = from ? from.inside.slice() : new Uint8Array(width * height);
    state.stroke = { width, height, inside, painted, last: point };
    dab(point);
  } else if (state.stroke) {
    dab(point);
    if (phase === "end") {
      const stroke = state.stroke;
      state.stroke = null;
      change(() => keepStroke(stroke));
    }
  }
}

function dab(point) {
  const { width, height, inside, last } = state.stroke;
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
  state.stroke.last = point;
  previewStroke();
}

function previewStroke() {
  const { width, height, inside } = state.stroke;
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d");
  const picture = context.createImageData(width, height);
  for (let n = 0; n < inside.length; n++) if (inside[n]) picture.data.set([255, 255, 255, 255], 4 * n);
  context.putImageData(picture, 0, 0);
  view.overlays = [canvas];
  view.draw();
}

async function keepStroke({ width, height, inside, painted }) {
  const o = { object_id: painted?.object_id ?? newId(), frame: state.frame };
  const png = await pngOf({ width, height, inside });
  const given = { value: state.value, png, revision: revision() };
  await take(await api.paint(state.current.case, o, given), painted);
}

// --- lists -------------------------------------------------------------------------------------

function showStructures() {
  const figures = state.figures ?? {};
  $("structures").replaceChildren(
    ...Object.entries(state.current.structures).map(([value, name]) => {
      const item = document.createElement("li");
      item.className = Number(value) === state.value ? "chosen" : "";
      const swatch = span("swatch", "");
      swatch.style.background = css(Number(value));
      const { ml, dice } = figures[name] ?? {};
      const facts = [ml === undefined ? "" : `${ml.toFixed(1)} ml`,
        dice === undefined ? "" : `Dice ${dice.toFixed(2)}`].filter(Boolean).join(", ");
      item.append(swatch, `${value} ${name}`, span("state", facts));
      item.onclick = () => chooseStructure(Number(value));
      return item;
    }),
  );
}

function chooseStructure(value) {
  if (!(value in state.current.structures)) return;
  state.value = value;
  state.object = onFrame().filter((one) => one.value === value).at(-1)?.object_id ?? null;
  change(showFrame);
}

function showObjects() {
  $("objects").replaceChildren(
    ...onFrame().map((one, number) => {
      const item = document.createElement("li");
      item.className = one.object_id === state.object ? "chosen" : "";
      const swatch = span("swatch", "");
      swatch.style.background = css(one.value);
      const iou = one.iou === null ? "" : one.iou.toFixed(2);
      item.append(swatch, `${number + 1} ${state.current.structures[one.value]}`,
        span("state", `${one.origin} ${iou}`));
      item.onclick = () => {
        state.object = one.object_id;
        state.value = one.value;
        change(showFrame);
      };
      return item;
    }),
  );
  $("remove").disabled = $("remove-all").disabled = $("carry").disabled = !chosen();
}

let figuresTimer = 0;
function showFiguresSoon() {
  clearTimeout(figuresTimer);
  figuresTimer = setTimeout(showFigures, 700);
}

async function showFigures() {
  const name = state.current.case;
  const found = await api.figures(name).catch(() => ({}));
  if (name !== state.current.case) return;
  state.figures = found;
  showStructures();
}

// --- whole cases -------------------------------------------------------------------------------

async function carry() {
  const seed = chosen();
  if (!seed) return;
  say("Carrying …");
  const reach = Number($("reach").value);
  const answer = await api.carry(state.current.case, seed, { reach, revision: revision() });
  for (const one of answer.objects) put(one);
  await changed(answer);
  await showFrame();
  say(`Carried to ${answer.objects.length} more frames; look at them with the wheel.`);
}

async function takeMany(action, text) {
  say("Segmenting …");
  const answer = await action(state.current.case, revision());
  for (const one of answer.objects) put(one);
  await changed(answer);
  await showFrame();
  say(`${answer.objects.length} ${text}`);
}

async function save() {
  const found = await api.save(state.current.case, revision());
  state.current.revision = found.revision;
  state.current.state = "done";
  state.undo = [];
  state.redo = [];
  const sent = found.send_failure ? `; not sent: ${found.send_failure}` : found.sent ? "; sent" : "";
  $("saved").textContent = `Version ${found.version}: ${found.files.join(", ")}${sent}`;
  await refreshCases();
  await showLearning();
  say("Saved. N goes to the next case.");
}

async function next() {
  const { case: name } = await api.next(state.current?.case);
  if (name === null) say("Every case is done.");
  else await open(name);
}

// --- learning ----------------------------------------------------------------------------------

let wasLearning = false;
async function showLearning() {
  if (!state.info.learns) return;
  const found = await api.learning();
  $("learning").hidden = false;
  const working = found.state === "training" || found.state === "measuring";
  $("train").disabled = working || found.done < found.needed;
  $("stop").hidden = !working;
  $("back").hidden = working || found.in_use === 0;
  const last = found.rounds.at(-1);
  const lines = [`${found.done} cases are done (${found.needed} are needed).`];
  if (found.state === "training") lines.push(`Epoch ${found.curve.length} of ${found.epochs}.`);
  if (found.state === "measuring") lines.push("Measuring on cases that were held out.");
  if (found.reason) lines.push(found.reason);
  if (last && !working) {
    lines.push(`Dice on ${last.held_out} held-out cases: ${last.before.toFixed(3)} before, ` +
      `${last.after.toFixed(3)} after. ${last.in_use ? "In use." : "The decoder before is in use."}`);
  }
  $("learn-text").textContent = lines.join(" ");
  drawCurve(found.curve);
  if (wasLearning && !working) say("Training has ended.");
  wasLearning = working;
  if (working) setTimeout(() => change(showLearning), POLL_MS);
}

function drawCurve(curve) {
  const canvas = $("curve");
  const values = curve.map((one) => one.val_dice ?? one.dice).filter((v) => typeof v === "number");
  canvas.hidden = values.length < 2;
  const context = canvas.getContext("2d");
  context.clearRect(0, 0, canvas.width, canvas.height);
  context.strokeStyle = "#4fb3a5";
  context.beginPath();
  values.forEach((value, n) => {
    const x = 4 + (n * (canvas.width - 8)) / Math.max(1, values.length - 1);
    context.lineTo(x, 66 - 62 * value);
  });
  context.stroke();
}

// --- controls ----------------------------------------------------------------------------------

function chooseTool(tool) {
  state.tool = tool;
  for (const button of document.querySelectorAll("[data-tool]")) {
    button.className = button.dataset.tool === tool ? "chosen" : "";
  }
}

const actions = {
  undo: () => change(() => step(state.undo, state.redo, "before")),
  redo: () => change(() => step(state.redo, state.undo, "after")),
  fit: () => view.fit(),
  "new-object": () => { state.object = null; change(showFrame); },
  remove: () => { const one = chosen(); if (one) change(() => removeObject(one)); },
  "remove-all": () => {
    const one = chosen();
    if (!one) return;
    change(async () => {
      const answer = await api.removeAll(state.current.case, one.object_id, revision());
      state.current.objects = state.current.objects.filter((o) => o.object_id !== one.object_id);
      state.undo = [];
      await changed(answer);
      await showFrame();
    });
  },
  carry: () => change(carry),
  propose: () => change(() => takeMany(api.propose, "masks; remove those that are wrong.")),
  begin: () => change(() => takeMany(api.begin, "masks of the given label.")),
  save: () => change(save),
  next: () => change(next),
  train: () => change(async () => { await api.train(); await showLearning(); }),
  stop: () => change(async () => { await api.stop(); await showLearning(); }),
  back: () => change(async () => { await api.back(); await showLearning(); }),
};
for (const [id, action] of Object.entries(actions)) $(id).onclick = action;
for (const button of document.querySelectorAll("[data-tool]")) {
  button.onclick = () => chooseTool(button.dataset.tool);
}

const keys = {
  p: () => chooseTool("prompt"), b: () => chooseTool("brush"), e: () => chooseTool("eraser"),
  f: actions.fit, c: actions.carry, s: actions.save, n: actions.next,
  Enter: actions["new-object"], Delete: actions.remove, Backspace: actions.remove,
  ArrowUp: () => goTo(state.frame + 1), ArrowDown: () => goTo(state.frame - 1),
  " ": () => { state.hidden = !state.hidden; change(showFrame); },
};
addEventListener("keydown", (event) => {
  if (["INPUT", "TEXTAREA"].includes(event.target.tagName) && event.target.type !== "range") return;
  if (event.ctrlKey || event.metaKey) {
    const action = { z: event.shiftKey ? actions.redo : actions.undo, y: actions.redo }[
      event.key.toLowerCase()];
    if (action) { event.preventDefault(); action(); }
    return;
  }
  if (/^[1-9]$/.test(event.key)) chooseStructure(Number(event.key));
  const action = keys[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  if (action && event.target.tagName !== "BUTTON") { event.preventDefault(); action(); }
});

$("search").oninput = showCases;
$("slice").oninput = () => goTo(Number($("slice").value));
$("opacity").oninput = () => { view.opacity = $("opacity").value / 100; view.draw(); };
$("contours").onchange = () => change(showFrame);
$("reach").oninput = () => { $("reach-text").textContent = $("reach").value; };
for (const id of ["contrast", "brightness"]) {
  $(id).oninput = () => {
    view.filter = `contrast(${$("contrast").value}%) brightness(${$("brightness").value}%)`;
    view.draw();
  };
}
$("name-form").onsubmit = (event) => {
  event.preventDefault();
  const name = $("name").value.trim();
  if (!name) return;
  const value = Math.max(0, ...Object.keys(state.current.structures).map(Number)) + 1;
  change(async () => {
    const given = { value, name, revision: revision() };
    await changed(await api.structure(state.current.case, given));
    $("name").value = "";
    state.value = value;
    state.object = null;
    await showFrame();
  });
};

// The frames that are encoded are seen while they are.
setInterval(() => {
  const current = state.current;
  if (current && current.ready.length < current.frames && !document.hidden) {
    api.view(current.case, state.frame).then(showReady, () => {});
  }
}, POLL_MS);

async function start() {
  chooseTool("prompt");
  state.info = await api.info();
  const runs = state.info.decoders ? `, fine-tuned` : ", not fine-tuned";
  $("model").textContent = `${state.info.domain}, ${state.info.model}${runs}`;
  await refreshCases();
  await showLearning();
  const wanted = decodeURIComponent(location.hash.slice(1));
  const first = state.cases.find((one) => one.case === wanted)?.case ?? (await api.next()).case ??
    state.cases[0].case;
  await open(first);
}
change(start);
globalThis.samonai = { state, view }; // for scripts in the browser's console, and for tests
