// The live view: the big word, the picture, counters, charts, alarms.

import { describe, drawLatency, drawScores, drawYield, shareOk } from "./charts.js";
import { WORDS, byId, clockOfNs, count, make, memory, nameOf, number, percent, setClass, setText, shape, span } from "./dom.js";
import { newestPart } from "./judge.js";
import { Scene } from "./scene.js";
import { get } from "./server.js";

const CHARTS_MS = 1000;
const TRENDS_MS = 10000;

export class LiveView {
  constructor({ onInspect }) {
    this.scene = new Scene(byId("scene"), {
      outlines: true,
      empty: "no picture yet",
      onShown: (part) => this.caption(part),
    });
    this.camera = "";
    this.camerasShown = "";
    this.nextCharts = 0;
    this.nextTrends = 0;
    this.shown = null;
    byId("inspect").addEventListener("click", () => this.shown && onInspect(this.shown));
    byId("scene").addEventListener("click", () => this.shown && onInspect(this.shown));
    this.mapControls();
  }

  mapControls() {
    const [toggle, opacity] = [byId("map-on"), byId("map-opacity")];
    const apply = () => {
      document.documentElement.style.setProperty("--map-opacity", toggle.checked ? opacity.value / 100 : 0);
      opacity.disabled = !toggle.checked;
    };
    toggle.checked = memory.get("map", "on") === "on";
    opacity.value = memory.get("opacity", "70");
    toggle.addEventListener("change", () => { memory.set("map", toggle.checked ? "on" : "off"); apply(); });
    opacity.addEventListener("input", () => { memory.set("opacity", opacity.value); apply(); });
    document.addEventListener("keydown", (event) => {
      const typing = event.target.closest?.("input:not([type=range], [type=checkbox]), select, textarea");
      if (event.key.toLowerCase() === "m" && !event.ctrlKey && !event.metaKey && !event.altKey && !typing) toggle.click();
    });
    apply();
  }

  /** Another box: nothing of the last one may stay. */
  forget() {
    this.camera = "";
    this.camerasShown = "";
    this.nextCharts = this.nextTrends = 0;
    this.scene.show(null);
  }

  showStanding(says) {
    setClass(byId("verdict"), `verdict ${says.kind}${says.word.length > 6 ? " long" : ""}`);
    if (byId("sign").dataset.kind !== says.kind) {
      byId("sign").dataset.kind = says.kind;
      byId("sign").replaceChildren(shape(says.kind));
    }
    setText(byId("word"), says.word);
    setText(byId("why"), says.why);
    const ago = says.ago >= 1 ? ` · ${span(says.ago)} ago` : "";
    const whose = says.live ? `${nameOf(says.part)} · ${says.part.cam}${ago}` : "";
    setText(byId("whose"), whose);
    byId("stage").classList.toggle("old", !says.live);
  }

  /** A new snapshot of the chosen box. */
  show(box, index, says) {
    this.index = index;
    this.showCameras(box);
    this.scene.show(this.choose(box, says), index);
    this.showCounters(box);
    this.showLists(box);
    const now = performance.now();
    if (now >= this.nextCharts) {
      this.nextCharts = now + CHARTS_MS;
      this.showCharts(box);
    }
    if (now >= this.nextTrends) {
      this.nextTrends = now + TRENDS_MS;
      this.fetchTrends();
    }
  }

  /** The reject the word speaks of, where there is a picture of it; else the newest picture. */
  choose(box, says) {
    const wanted = box.cameras.filter((camera) => !this.camera || camera.name === this.camera);
    const reject = box.last_reject;
    if (says.held && reject !== null && reject.number === says.part.number && (!this.camera || reject.cam === this.camera) && (reject.picture || reject.overlay)) {
      return reject;
    }
    const newest = (parts) => newestPart({ cameras: parts.map((last) => ({ last })) });
    const pictured = newest(wanted.map((camera) => camera.pictured).filter((part) => part !== null));
    const mapped = newest(wanted.map((camera) => camera.last).filter((part) => part?.overlay));
    return pictured ?? mapped ?? (reject?.overlay ? reject : null);
  }

  caption(part) {
    this.shown = part;
    byId("inspect").disabled = part === null;
    if (part === null) return byId("caption").replaceChildren();
    const known = part.truth === undefined ? "" : ` · rendered: ${part.truth}`;
    const badge = make("span", { class: `badge ${part.verdict}` }, shape(part.verdict), WORDS[part.verdict]);
    byId("caption").replaceChildren(badge, ` ${nameOf(part)} · score ${number(part.score)}${known}${part.overlay ? "" : " · no map was sent"}`);
  }

  showCameras(box) {
    const names = box.cameras.map((camera) => camera.name);
    const shown = names.join();
    if (shown === this.camerasShown) return this.showCameraSigns(box);
    this.camerasShown = shown;
    if (!names.includes(this.camera)) this.camera = "";
    byId("cameras").hidden = names.length < 2;
    const choices = ["", ...names].map((name) =>
      make("button", {
        type: "button",
        text: name || "all",
        dataset: { camera: name },
        "aria-pressed": String(name === this.camera),
        on: { click: () => this.pick(name) },
      }),
    );
    byId("cameras").replaceChildren(...choices);
    this.showCameraSigns(box);
  }

  /** The newest verdict of each camera, also of those that are not looked at. */
  showCameraSigns(box) {
    for (const button of byId("cameras").children) {
      const last = box.cameras.find((camera) => camera.name === button.dataset.camera)?.last;
      if (!last || button.dataset.verdict === last.verdict) continue;
      button.dataset.verdict = last.verdict;
      button.replaceChildren(shape(last.verdict), ` ${button.dataset.camera}`);
    }
  }

  pick(name) {
    this.camera = name;
    for (const button of byId("cameras").children) {
      button.setAttribute("aria-pressed", String(button.dataset.camera === name));
    }
    this.nextCharts = this.nextTrends = 0;
    this.scene.show(null);
  }

  showCounters(box) {
    const counts = { ok: 0, ng: 0, review: 0, err: 0, ...box.counts };
    for (const [name, value] of Object.entries(counts)) setText(byId(`count-${name}`), count(value));
    const total = counts.ok + counts.ng + counts.review + counts.err;
    setText(byId("yield"), percent(total ? counts.ok / total : null));
    setText(byId("rate"), box.pace_s > 0 ? number(1 / box.pace_s, 1) : "–");
    this.quantiles = quantiles(this.mine(box).map((part) => part.ms));
    setText(byId("p50"), number(this.quantiles.p50, 1));
    setText(byId("p99"), number(this.quantiles.p99, 1));
    setText(byId("dropped"), count(box.dropped));
    byId("dropped-cell").classList.toggle("warn", box.dropped > 0);
  }

  mine(box) {
    return this.camera ? box.history.filter((part) => part.cam === this.camera) : box.history;
  }

  showCharts(box) {
    const parts = this.mine(box);
    drawScores(byId("scores"), parts);
    drawLatency(byId("latency"), parts, this.quantiles);
    describe(byId("scores"), parts);
  }

  async fetchTrends() {
    const found = await get("/api/trends", { box: this.index, camera: this.camera, newest: 1 }).catch(() => null);
    if (found === null) return;
    drawYield(byId("yields"), found.minutes);
    const sum = { ok: 0, ng: 0, review: 0, err: 0 };
    for (const minute of found.minutes) for (const name of Object.keys(sum)) sum[name] += minute[name];
    setText(byId("yield-hour"), found.minutes.length ? `last hour ${percent(shareOk(sum))}` : "");
  }

  showLists(box) {
    fill(byId("alarms"), box.alarms, "none", (alarm) =>
      entry(alarm.severity, `${alarm.cam ? `${alarm.cam}: ` : ""}${alarm.meaning}`, `${alarm.name}${alarm.text ? ` · ${alarm.text}` : ""}`, `since ${clockOfNs(alarm.since)}`),
    );
    const answers = ["alive", "fresh", "contiguous", "valid"].map((name) => [name, box.status[name]]);
    fill(byId("answers"), answers, "", ([name, yes]) => make("span", { class: `chip ${yes ? "yes" : "no"}`, text: `${yes ? "✓" : "✗"} ${name}` }));
    fill(byId("cameras-state"), box.cameras.filter((camera) => camera.health), "no camera has reported yet", (camera) => {
      const { state, admitted, reconnects, last_age_ms: age, detail } = camera.health;
      const more = [`${count(admitted)} parts`, reconnects ? `${reconnects} reconnects` : "", age === null ? "" : `last frame ${span(age / 1000)} old`, detail];
      return entry(state === "running" ? "calm" : "warning", `${camera.name}: ${state}`, more.filter(Boolean).join(" · "));
    });
    fill(byId("drops"), Object.entries(box.drops), "no part was dropped", ([place, lost]) => entry("warning", `${count(lost)} dropped`, place));
    fill(byId("notices"), box.notices, "nothing yet", (notice) => entry(notice.kind, notice.text, "", clockOfNs(notice.t)));
  }
}

export function quantiles(values) {
  const sorted = values.toSorted((a, b) => a - b);
  const at = (share) => (sorted.length ? sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] : null);
  return { p50: at(0.5), p99: at(0.99) };
}

function entry(kind, title, more = "", when = "") {
  return make("li", { class: kind }, make("span", { class: "what", text: title }), when ? make("time", { text: when }) : null, more ? make("span", { class: "more", text: more }) : null);
}

/** Rebuilds a list only when it says something else. */
function fill(list, items, none, build) {
  const key = JSON.stringify(items);
  if (list.dataset.shown === key) return;
  list.dataset.shown = key;
  const empty = none ? [make("li", { class: "calm", text: none })] : [];
  list.replaceChildren(...(items.length ? items.map(build) : empty));
}
