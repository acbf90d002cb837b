// Small helpers around the document: elements, verdict shapes, and how figures and times are written.

export const VERDICTS = ["ok", "ng", "review", "err"];
export const WORDS = { ok: "OK", ng: "NG", review: "REVIEW", err: "NOT INSPECTED" };

export const byId = (id) => document.getElementById(id);

/** An element. `attributes`: class, text, dataset, on (listeners), or anything settable. */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (name === "class") element.className = value;
    else if (name === "text") element.textContent = value;
    else if (name === "dataset") Object.assign(element.dataset, value);
    else if (name === "on") for (const [kind, work] of Object.entries(value)) element.addEventListener(kind, work);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/** The shape that goes with a verdict, so that colour is never the only sign. */
export function shape(kind) {
  const svg = svgElement("svg", { class: "shape", viewBox: "0 0 24 24", "aria-hidden": "true" });
  svg.append(svgElement("use", { href: `#shape-${kind}` }));
  return svg;
}

export function svgElement(tag, attributes = {}) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}

/** Writes only what differs: a screen reader must not hear the same thing five times a second. */
export function setText(element, value) {
  const text = String(value);
  if (element.textContent !== text) element.textContent = text;
}

export function setClass(element, value) {
  if (element.className !== value) element.className = value;
}

export const number = (value, digits = 3) =>
  value === null || value === undefined ? "–" : value.toFixed(digits);

export const count = (value) => Number(value).toLocaleString("en-US").replaceAll(",", " ");

export const percent = (share, digits = 1) =>
  share === null || share === undefined ? "–" : `${(100 * share).toFixed(digits)} %`;

/** "0.8 s", "34 s", "12 min", "3 h": as exact as anybody reads it. */
export function span(seconds) {
  if (seconds < 10) return `${seconds.toFixed(Number.isInteger(seconds) ? 0 : 1)} s`;
  if (seconds < 120) return `${Math.round(seconds)} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  if (seconds < 172800) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86400)} days`;
}

const twoDigits = (value) => String(value).padStart(2, "0");

/** hh:mm:ss of this computer's time zone. */
export function clock(date) {
  return [date.getHours(), date.getMinutes(), date.getSeconds()].map(twoDigits).join(":");
}

export const clockOfNs = (ns) => (ns ? clock(new Date(ns / 1e6)) : "");

/** What a part is called: its id, its file, or its place in the camera's sequence. */
export const nameOf = (part) => part.part?.id || part.name || `${part.cam} #${part.cam_seq}`;

export const keyOf = (part) => `${part.boot}/${part.seq}`;

/** Remembered on this device; a browser that forbids it just forgets. */
export const memory = {
  get(name, otherwise) {
    try {
      return localStorage.getItem(`skrd4ad.${name}`) ?? otherwise;
    } catch {
      return otherwise;
    }
  },
  set(name, value) {
    try {
      localStorage.setItem(`skrd4ad.${name}`, value);
    } catch {
      // Private windows may refuse; the choice then lasts until the page is closed.
    }
  },
};
