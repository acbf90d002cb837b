// What the big word may say. Pure: a box's snapshot, the page's own link and the time in, words out.
//
// A verdict is shown only while the stream is alive and valid and parts come. An old one never is.

import { WORDS, number, span } from "./dom.js";

export const IDLE_S = 10;
const FAST_S = 0.5;
const FOLLOWED_S = 4;
export const HOLD_MS = 2000;

/** The newest part that was not ok stays for a moment: at 50 parts a second nobody could see it. */
export function heldReject(box, held, now) {
  const rejected = box.added.filter((part) => part.verdict !== "ok").at(-1);
  if (rejected !== undefined && box.pace_s !== null && box.pace_s < FAST_S) {
    return { part: rejected, at: now };
  }
  return held !== null && now - held.at < HOLD_MS ? held : null;
}

/** {kind, word, why, part, live}: kind is a verdict only where `live`, else "none" or "idle".
 *  `camera` "" means all of the box. */
export function standing(box, link, now, held = null, camera = "") {
  if (!link.live) return nothing("NOT CONNECTED", lostLink(link));
  if (box === undefined) return nothing("WAITING", "for the page's server");
  const { status } = box;
  if (!status.alive) {
    if (status.state === "BYE") return nothing("STOPPED", "the line was stopped in order");
    if (status.silent_s === null || status.silent_s === undefined) {
      return nothing("NO SIGNAL", "nothing has been heard from the line yet");
    }
    return nothing("NO SIGNAL", `the line has been silent for ${span(status.silent_s)}: stop feeding parts`);
  }
  // Whoever follows the box looks at it five times a second; should it hang, its last word is old.
  const followed = (box.followed_s ?? 0) + (now - box.at) / 1000;
  if (followed > FOLLOWED_S) {
    return nothing("NO SIGNAL", `skrd4ad serve has not followed this box for ${span(followed)}: restart it`);
  }
  if (!status.valid) return nothing("NOT READY", `the line says ${status.state || "nothing"}: stop feeding parts`);
  const newest = newestPart(box, camera);
  if (newest === null) return nothing("WAITING", "for the first part");
  // A camera that stopped beside one that runs is as old as its own last part.
  const behind = (newestPart(box).t_pub - newest.t_pub) / 1e9;
  const quiet = (box.quiet_s ?? 0) + (now - box.at) / 1000 + behind;
  if (quiet > Math.max(IDLE_S, 3 * (box.pace_s ?? 0) * (camera ? box.cameras.length : 1))) {
    const why = `the last part was ${WORDS[newest.verdict]}, ${span(quiet)} ago; the line is ready`;
    return { kind: "idle", word: "NO PARTS", why, part: newest, live: false };
  }
  if (!status.fresh) {
    return nothing("LATE", `results arrive late; the newest says ${WORDS[newest.verdict]}`);
  }
  const holds = held !== null && now - held.at < HOLD_MS && held.part.number !== newest.number;
  if (holds && (!camera || held.part.cam === camera)) {
    return { ...verdict(held.part, grounds(held.part), true), ago: Math.max(0, now - held.at) / 1000 };
  }
  return verdict(newest, grounds(newest), false);
}

/** The newest part of all cameras, or of one. */
export function newestPart(box, camera = "") {
  const chosen = camera ? box.cameras.filter((one) => one.name === camera) : box.cameras;
  const parts = chosen.map((one) => one.last).filter((part) => part !== null);
  return parts.reduce((best, part) => (best === null || part.number > best.number ? part : best), null);
}

export function grounds(part) {
  if (part.score === null) return part.detail || (part.reason ?? []).join(", ") || "no score";
  const reasons = (part.reason ?? []).filter((reason) => reason !== "score");
  const more = reasons.length ? ` (${reasons.join(", ")})` : "";
  return `score ${number(part.score)} · threshold ${number(part.thr)}${more}`;
}

function verdict(part, why, held) {
  return { kind: part.verdict, word: WORDS[part.verdict], why, part, live: true, held };
}

function nothing(word, why) {
  return { kind: "none", word, why, part: null, live: false };
}

function lostLink(link) {
  if (link.fault !== null) return `this page failed (${link.fault}): reload it`;
  if (link.silenceMs === null) return "the page's server has not answered yet";
  return `skrd4ad serve has not answered for ${span(link.silenceMs / 1000)}: what is below is old`;
}
