// The page: buttons, sliders and keys over the modules beside this one.

import { $, change, onFrame, say, state } from "./app.js";
import * as draw from "./annotate.js";
import { api } from "./api.js";
import { drawStroke } from "./brush.js";
import * as cases from "./cases.js";
import { showFrame, view } from "./frame.js";
import { useKeys } from "./keys.js";
import { showLearning, showModel } from "./learn.js";
import { chooseStructure, nextObject } from "./lists.js";
import { volume } from "./volume.js";

const POLL_MS = 2500;

view.handlers = {
  box: (box) => change(() => draw.prompt({ box })),
  click: (x, y, sign) => {
    volume.goToPoint(x, y);
    change(() => draw.prompt({ click: [x, y, sign] }));
  },
  stroke: drawStroke,
  wheel: (step) => cases.goTo(state.frame + step),
};
view.painting = () => state.tool !== "prompt";

function chooseTool(tool) {
  state.tool = tool;
  for (const button of document.querySelectorAll("[data-tool]")) {
    button.classList.toggle("chosen", button.dataset.tool === tool);
  }
}

/** Moves a slider by some of its steps, as if it had been dragged. */
function slide(id, steps) {
  const slider = $(id);
  slider.value = Number(slider.value) + steps;
  slider.dispatchEvent(new Event("input"));
}

function toggle(id) {
  $(id).checked = !$(id).checked;
  $(id).dispatchEvent(new Event("change"));
}

const learning = (action) => () => change(async () => { await action(); await showLearning(); });

const actions = {
  undo: () => change(() => draw.step("before")),
  redo: () => change(() => draw.step("after")),
  fit: () => view.fit(),
  "new-object": () => { state.object = null; change(showFrame); },
  remove: () => change(draw.remove),
  "remove-all": () => change(draw.removeEverywhere),
  carry: () => change(draw.carry),
  propose: () => change(draw.propose),
  accept: () => change(() => draw.accept(false)),
  "accept-all": () => change(() => draw.accept(true)),
  dismiss: () => change(() => draw.dismiss(false)),
  "dismiss-all": () => change(() => draw.dismiss(true)),
  begin: () => change(draw.begin),
  save: () => change(cases.save),
  next: () => change(cases.next),
  train: learning(api.train),
  stop: learning(api.stop),
  back: learning(api.back),
  "toggle-volume": () => change(() => volume.toggle()),
};
for (const [id, action] of Object.entries(actions)) $(id).onclick = action;
for (const button of document.querySelectorAll("[data-tool]")) {
  button.onclick = () => chooseTool(button.dataset.tool);
}

/** Runs a button's action from the keyboard, unless the button could not be pressed either. */
const press = (id) => () => { if (!$(id).disabled && !$(id).closest("[hidden]")) actions[id](); };

useKeys([
  { key: "p", what: "box and clicks", run: () => chooseTool("prompt") },
  { key: "l", what: "outline", run: () => chooseTool("lasso") },
  { key: "b", what: "brush", run: () => chooseTool("brush") },
  { key: "e", what: "eraser", run: () => chooseTool("eraser") },
  { key: "[", what: "smaller or larger brush", shown: "[ ]", run: () => slide("size", -1) },
  { key: "]", what: "", run: () => slide("size", 1) },
  { key: "Enter", what: "new object", run: actions["new-object"] },
  { key: "o", what: "next object on the frame", run: nextObject },
  ...Array.from("123456789", (digit, n) => (
    { key: digit, shown: "1 … 9", what: n ? "" : "structure", run: () => chooseStructure(n + 1) })),
  { key: "m", what: "name another structure", run: () => $("name").focus() },
  { key: "Delete", what: "remove the object from the frame", run: press("remove") },
  { key: "Backspace", what: "", run: press("remove") },
  { key: "Shift+Delete", what: "remove it from all frames", run: press("remove-all") },
  { key: "Ctrl+z", what: "undo, redo", shown: "Ctrl-Z, Ctrl-Y", run: actions.undo },
  { key: "Ctrl+y", what: "", run: actions.redo },
  { key: "Ctrl+Shift+z", what: "", run: actions.redo },
  { key: "ArrowUp", what: "frames", shown: "↑ ↓", run: () => cases.goTo(state.frame + 1) },
  { key: "ArrowDown", what: "", run: () => cases.goTo(state.frame - 1) },
  { key: "PageUp", what: "ten frames", shown: "Page ↑ ↓", run: () => cases.goTo(state.frame + 10) },
  { key: "PageDown", what: "", run: () => cases.goTo(state.frame - 10) },
  { key: "c", what: "carry both ways", run: press("carry") },
  { key: "<", what: "carry less or farther", shown: "< >", run: () => slide("reach", -1) },
  { key: ">", what: "", run: () => slide("reach", 1) },
  { key: "g", what: "segment without prompts", run: press("propose") },
  { key: "a", what: "accept the proposal, all with Shift", run: press("accept") },
  { key: "Shift+a", what: "", run: press("accept-all") },
  { key: "x", what: "dismiss the proposal, all with Shift", run: press("dismiss") },
  { key: "Shift+x", what: "", run: press("dismiss-all") },
  { key: "d", what: "begin with the given label", run: press("begin") },
  { key: "w", what: "next window", run: () => change(() => cases.chooseWindow()) },
  { key: "u", what: "uncertainty", run: () => toggle("uncertain") },
  { key: "k", what: "contours", run: () => toggle("contours") },
  { key: ",", what: "opacity", shown: ", .", run: () => slide("opacity", -10) },
  { key: ".", what: "", run: () => slide("opacity", 10) },
  { key: " ", what: "hide masks", shown: "Space",
    run: () => { state.hidden = !state.hidden; change(showFrame); } },
  { key: "+", what: "zoom", shown: "+ −", run: () => view.zoomBy(1.2) },
  { key: "-", what: "", run: () => view.zoomBy(1 / 1.2) },
  { key: "f", what: "fit", run: actions.fit },
  { key: "v", what: "three planes and 3D", run: press("toggle-volume") },
  { key: "s", what: "save as done", run: actions.save },
  { key: "n", what: "next case", run: actions.next },
  { key: "/", what: "find a case", run: () => $("search").focus() },
  { key: "h", what: "saved versions", run: () => { $("versions").open = !$("versions").open; } },
  { key: "t", what: "train, stop with Shift", run: press("train") },
  { key: "Shift+t", what: "", run: press("stop") },
  { key: "r", what: "the decoder before", run: press("back") },
  { key: "?", what: "these keys", run: () => { $("help").open = !$("help").open; } },
]);

$("search").oninput = cases.showCases;
$("search").onkeydown = (event) => {
  if (event.key !== "Enter") return;
  $("cases").querySelector("li")?.click();
  event.target.blur();
};
$("slice").oninput = () => cases.goTo(Number($("slice").value));
$("ready").onclick = (event) => {
  const share = event.offsetX / event.target.clientWidth;
  cases.goTo(Math.floor(share * state.current.frames));
};
$("window").onchange = (event) => { change(() => cases.chooseWindow(event.target.value)); };
$("opacity").oninput = () => {
  view.opacity = $("opacity").value / 100;
  volume.opacity(view.opacity);
  view.draw();
};
$("contours").onchange = () => change(showFrame);
$("uncertain").onchange = () => {
  state.uncertain = $("uncertain").checked;
  change(showFrame);
};
$("reach").oninput = () => { $("reach-text").textContent = $("reach").value; };
for (const id of ["contrast", "brightness"]) {
  $(id).oninput = () => {
    view.filter = `contrast(${$("contrast").value}%) brightness(${$("brightness").value}%)`;
    view.draw();
  };
}
$("name-form").onsubmit = (event) => {
  event.preventDefault();
  change(draw.nameStructure);
};
// A slider or a check box that was used gives the keys back.
addEventListener("change", (event) => {
  if (["range", "checkbox"].includes(event.target.type)) event.target.blur();
});

// Frames that are encoded, and scores, show while they come.
setInterval(async () => {
  const current = state.current;
  if (!current || document.hidden) return;
  if (current.ready.length < current.frames) await cases.look();
  if (state.cases.some((one) => one.score === null) && state.info.proposes) {
    await cases.refreshCases().catch(() => {});
  }
}, POLL_MS);

async function start() {
  chooseTool("prompt");
  state.info = await api.info();
  showModel();
  await cases.refreshCases();
  await showLearning();
  const wanted = decodeURIComponent(location.hash.slice(1));
  const first = state.cases.find((one) => one.case === wanted)?.case ?? (await api.next()).case ??
    state.cases[0].case;
  await cases.open(first);
}
change(start).then(() => { if (!state.current) say("The page could not start; see above.", true); });

// For scripts in the browser's console, and for tests.
globalThis.samonai = { state, view, volume, onFrame };
