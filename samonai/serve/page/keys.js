// Keys: one table, which the keyboard and the list on the page are made from.

import { $, state } from "./app.js";

/**
 * @typedef {{key: string, what: string, run: (event: KeyboardEvent) => any, shown?: string}} Key
 */

/** Writes the list of keys, and listens. @param {Key[]} table */
export function useKeys(table) {
  $("keys").replaceChildren(
    ...table.filter((one) => one.what).flatMap((one) => {
      const term = document.createElement("dt");
      const text = document.createElement("dd");
      term.textContent = one.shown ?? one.key;
      text.textContent = one.what;
      return [term, text];
    }),
  );
  const actions = new Map(table.map((one) => [one.key, one.run]));
  addEventListener("keydown", (event) => {
    const { target } = event;
    if (event.key === "Escape") {
      target.blur?.();
      return;
    }
    const writing = target.tagName === "INPUT" && !["range", "checkbox"].includes(target.type);
    if (writing || !state.current || event.altKey) return;
    if ([" ", "Enter"].includes(event.key) && ["BUTTON", "SUMMARY"].includes(target.tagName)) return;
    if (["ArrowUp", "ArrowDown"].includes(event.key) && target.tagName === "SELECT") return;
    const action = actions.get(nameOf(event));
    if (!action) return;
    event.preventDefault();
    action(event);
  });
}

/** Names a key as the table does: "Ctrl+z", "Shift+a", "PageUp". @param {KeyboardEvent} event */
function nameOf(event) {
  const letter = /^[a-z]$/i.test(event.key);
  const shift = event.shiftKey && (letter || event.key.length > 1) ? "Shift+" : "";
  const control = event.ctrlKey || event.metaKey ? "Ctrl+" : "";
  return control + shift + (letter ? event.key.toLowerCase() : event.key);
}
