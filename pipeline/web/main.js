// Joins the stream, the views and the boxes. Whatever goes wrong here is shown, never hidden.

import { BoxStrip } from "./boxes.js";
import { byId, clock, memory, setClass, setText, shape, span } from "./dom.js";
import { heldReject, standing } from "./judge.js";
import { LiveView } from "./live.js";
import { PartDialog } from "./part_dialog.js";
import { PartsView } from "./parts.js";
import { RegionsView } from "./regions.js";
import { get } from "./server.js";
import { Stream } from "./stream.js";
import { ThresholdView } from "./threshold.js";

const TICK_MS = 250;
const THEMES = ["auto", "light", "dark"];
const SIGNS = { auto: "◐", light: "☀", dark: "☾" };

class Page {
  constructor(about) {
    this.about = about;
    this.chosen = 0;
    this.held = [];
    this.dialog = new PartDialog(this);
    this.views = {
      live: new LiveView({ onInspect: (part) => this.dialog.open([part], part, this.chosen) }),
      parts: new PartsView(this),
      threshold: new ThresholdView(this),
      regions: new RegionsView(this),
    };
    this.strip = new BoxStrip(about.boxes, (index) => this.choose(index));
    this.stream = new Stream((boxes) => this.onBoxes(boxes));
    addEventListener("hashchange", () => this.showView());
    addEventListener("resize", () => this.redraw());
    setInterval(() => this.tick(), TICK_MS);
    // A tab that slept, or a computer that did, must say so before anybody reads it.
    document.addEventListener("visibilitychange", () => this.tick());
    this.showView();
    this.tick();
  }

  get box() {
    return this.stream.boxes[this.chosen];
  }

  get link() {
    return { live: this.stream.live, silenceMs: this.stream.silence(), fault: this.stream.fault };
  }

  onBoxes(boxes) {
    const now = performance.now();
    this.held = boxes.map((box, index) => heldReject(box, this.held[index] ?? null, now));
    this.tick();
    const says = this.saysHere();
    if (this.view === "live") this.views.live.show(this.box, this.chosen, says);
    else this.views[this.view].onBox?.(this.box, this.chosen);
  }

  says(index, camera = "") {
    return standing(this.stream.boxes[index], this.link, performance.now(), this.held[index] ?? null, camera);
  }

  /** Of the chosen box, and of the camera that the live view shows. */
  saysHere() {
    return this.says(this.chosen, this.views.live.camera);
  }

  /** Four times a second, whether anything comes or not: time itself makes a verdict old. */
  tick() {
    const { link } = this;
    const says = this.saysHere();
    setText(byId("clock"), clock(new Date()));
    this.views.live.showStanding(says);
    this.strip.show(this.stream.boxes, (index) => this.says(index));
    this.showMini(says);
    const dead = says.kind === "none";
    document.body.classList.toggle("dead", dead);
    setText(byId("banner-word"), link.live ? says.word : "NOT LIVE");
    setText(byId("banner-why"), says.why);
    byId("banner").hidden = !dead;
    setText(byId("link"), link.live ? (dead ? says.word.toLowerCase() : "● live") : `no data ${span((link.silenceMs ?? 0) / 1000)}`);
    setClass(byId("link"), `chip ${link.live && !dead ? "yes" : "no"}`);
    const name = this.box?.box || "skrd4ad";
    const title = `${says.word} · ${name}`;
    if (document.title !== title) document.title = title;
  }

  /** In the other views the verdict is still in sight. */
  showMini(says) {
    const mini = byId("mini");
    mini.hidden = this.view === "live";
    setClass(mini, `badge ${says.kind}`);
    if (mini.dataset.word === says.word) return;
    mini.dataset.word = says.word;
    mini.replaceChildren(shape(says.kind), says.word);
  }

  choose(index) {
    this.chosen = index;
    for (const view of Object.values(this.views)) view.forget?.();
    if (this.box) this.onBoxes(this.stream.boxes);
    this.views[this.view].enter?.();
  }

  showView() {
    const wanted = location.hash.slice(2);
    const before = this.view;
    this.view = wanted in this.views ? wanted : "live";
    for (const name of Object.keys(this.views)) byId(name).hidden = name !== this.view;
    for (const link of byId("nav").children) {
      if (link.hash === `#/${this.view}`) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
    if (before !== undefined && before !== this.view) {
      this.views[before].leave?.();
      scrollTo(0, 0);
    }
    this.views[this.view].enter?.();
    this.redraw();
  }

  redraw() {
    if (this.box === undefined) return;
    const view = this.views[this.view];
    if (this.view === "live") {
      view.nextCharts = view.nextTrends = 0;
      view.show(this.box, this.chosen, this.saysHere());
    } else view.redraw?.();
  }
}

function themeButton(onChange) {
  let theme = memory.get("theme", "auto");
  const apply = () => {
    document.documentElement.dataset.theme = theme;
    setText(byId("theme"), SIGNS[theme]);
    byId("theme").setAttribute("aria-label", `Theme: ${theme}`);
    onChange();
  };
  byId("theme").addEventListener("click", () => {
    theme = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length];
    memory.set("theme", theme);
    apply();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", onChange);
  apply();
}

async function start() {
  let page = null;
  themeButton(() => page?.redraw());
  const about = await get("/api/about");
  byId("log-out").hidden = !about.log_out;
  setText(byId("user"), about.who);
  page = new Page(about);
  // A page whose program broke must not go on looking like a page that works.
  addEventListener("error", (event) => { page.stream.fault ??= event.message; page.tick(); });
  addEventListener("unhandledrejection", (event) => { page.stream.fault ??= String(event.reason?.message ?? event.reason); page.tick(); });
}

start().catch((error) => {
  setText(byId("banner-why"), `${error.message}; trying again`);
  setTimeout(() => location.reload(), 3000);
});
