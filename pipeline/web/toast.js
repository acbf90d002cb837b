// Short answers to what a person did, and questions before what is hard to undo.

import { byId, make } from "./dom.js";

const SHOWN_MS = 6000;

export function toast(sentence, kind = "good") {
  const element = make("p", { class: `toast ${kind}`, text: sentence });
  byId("toasts").append(element);
  setTimeout(() => element.remove(), SHOWN_MS);
}

/** True when the person says yes. */
export function ask(sentence, yes) {
  const dialog = byId("question");
  byId("question-text").textContent = sentence;
  byId("question-yes").textContent = yes;
  dialog.returnValue = "no";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
  });
}
