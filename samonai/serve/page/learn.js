// Training on finished cases: how it stands, its curve, and Dice before and after.

import { $, change, say, state } from "./app.js";
import { api } from "./api.js";

const POLL_MS = 1500;
let wasWorking = false;
/** Number of the round whose decoder is in use; null: not known yet. */
let used = null;

export async function showLearning() {
  if (!state.info.learns) return;
  const found = await api.learning();
  const working = found.state === "training" || found.state === "measuring";
  $("learning").hidden = false;
  $("train").disabled = working || found.done < found.needed;
  $("stop").hidden = !working;
  $("back").hidden = working || found.in_use === 0;
  $("learn-text").textContent = [
    `${found.done} cases are done (${found.needed} are needed).`,
    found.state === "training" ? `Epoch ${found.curve.length} of ${found.epochs}.` : "",
    found.state === "measuring" ? "Measuring on cases that were held out." : "",
    found.reason,
  ].filter(Boolean).join(" ");
  showRounds(found);
  drawCurve(found.curve, found.epochs);
  if (used !== null && used !== found.in_use) await useNewDecoder();
  used = found.in_use;
  if (wasWorking && !working) ended(found);
  wasWorking = working;
  if (working) setTimeout(() => change(showLearning), POLL_MS);
}

/** Takes over what another decoder can do. */
async function useNewDecoder() {
  state.info = await api.info();
  $("propose").hidden = !state.info.proposes;
  showModel();
}

function ended(found) {
  const last = found.rounds.at(-1);
  if (found.reason || !last) say(found.reason || "Training has ended.", true);
  else if (last.in_use) say(`The new decoder is in use: ${dice(last)}.`);
  else say(`The decoder before stays in use: ${dice(last)}.`);
}

const dice = (round) =>
  `Dice ${round.before.toFixed(3)} before, ${round.after.toFixed(3)} after, on ` +
  `${round.held_out} held-out ${round.held_out === 1 ? "case" : "cases"}`;

export function showModel() {
  const { domain, model, decoders } = state.info;
  $("model").textContent = `${domain}, ${model}${decoders ? ", fine-tuned" : ", not fine-tuned"}`;
}

function showRounds({ rounds, in_use: current }) {
  $("rounds").hidden = !rounds.length;
  $("rounds").tBodies[0].replaceChildren(
    ...rounds.map((round) => {
      const row = document.createElement("tr");
      const used = round.number === current ? "in use" : round.better ? "" : "not better";
      const cells = [round.number, round.cases, round.before.toFixed(3), round.after.toFixed(3), used];
      for (const text of cells) row.insertCell().textContent = String(text);
      return row;
    }),
  );
}

/** Draws the Dice of each epoch. @param {{val_dice?: number}[]} curve @param {number} epochs */
function drawCurve(curve, epochs) {
  const canvas = $("curve");
  const values = curve.map((one) => one.val_dice).filter((v) => typeof v === "number");
  canvas.hidden = !values.length;
  if (!values.length) return;
  const [left, top, width, height] = [24, 6, canvas.width - 32, canvas.height - 24];
  const low = Math.floor(Math.min(...values) * 10) / 10;
  const high = Math.max(low + 0.1, Math.ceil(Math.max(...values) * 10) / 10);
  const x = (n) => left + (n * width) / Math.max(1, epochs - 1);
  const y = (value) => top + (height * (high - value)) / (high - low);
  const context = canvas.getContext("2d");
  context.clearRect(0, 0, canvas.width, canvas.height);
  context.font = "10px system-ui";
  context.fillStyle = "#93a1b0";
  context.strokeStyle = "#3d4b5b";
  for (const value of [low, high]) {
    context.fillText(value.toFixed(1), 2, y(value) + 3);
    context.beginPath();
    context.moveTo(left, y(value));
    context.lineTo(left + width, y(value));
    context.stroke();
  }
  context.fillText("Dice by epoch, held-out cases", left, canvas.height - 6);
  context.strokeStyle = context.fillStyle = "#4fb3a5";
  context.beginPath();
  values.forEach((value, n) => context.lineTo(x(n), y(value)));
  context.stroke();
  const last = values.length - 1;
  context.fillRect(x(last) - 2, y(values[last]) - 2, 4, 4);
}
