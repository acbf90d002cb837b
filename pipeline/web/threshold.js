// What another threshold would have made of the parts that were seen; and, for engineers, the order.

import { drawHistogram } from "./charts.js";
import { byId, count, make, memory, number, percent, setText } from "./dom.js";
import { placeCards } from "./parts.js";
import { Refused, get, post } from "./server.js";
import { ask, toast } from "./toast.js";

const REFRESH_MS = 5000;
const STEPS = 1000;

export class ThresholdView {
  constructor(page) {
    this.page = page;
    this.cards = new Map();
    this.build();
    this.forget();
  }

  build() {
    this.canvas = make("canvas", { id: "histogram", role: "img", "aria-label": "how many parts have which score" });
    this.slider = make("input", { id: "preview-slider", type: "range", min: "1", max: String(STEPS), "aria-label": "threshold to preview" });
    this.field = make("input", { id: "preview-value", type: "number", min: "0", step: "any", inputmode: "decimal" });
    this.newest = make("select", { id: "preview-newest" }, ...[1000, 5000, 20000, 100000].map((n) => make("option", { value: String(n), text: count(n), selected: n === 5000 })));
    this.camera = make("select", { id: "preview-camera" }, make("option", { value: "", text: "all" }));
    this.now = make("select", { id: "preview-now" });
    this.nowLabel = make("label", { text: "In place of ", hidden: true }, this.now);
    this.table = make("div", { id: "preview-table" });
    this.order = make("div", { id: "preview-order" });
    this.changed = make("div", { id: "preview-changed", class: "gallery" });
    this.changedTitle = make("h2", { text: "Parts that would be judged otherwise" });
    byId("threshold").append(
      make("section", { class: "panel" },
        make("h2", { text: "What would another threshold have done?" }),
        make("p", { class: "soft", text: "Move the line. Nothing changes on the box; the parts it has already judged are judged again here, by their scores." }),
        make("div", { class: "bar" },
          make("label", { text: "Threshold " }, this.field),
          this.nowLabel,
          make("label", { text: "Newest parts " }, this.newest),
          make("label", { text: "Camera " }, this.camera),
          make("button", { type: "button", text: "Back to the present one", on: { click: () => this.set(this.current) } })),
        this.canvas, this.slider,
        make("p", { class: "legend" }, ...[["ok", "passed"], ["review", "rejected"], ["marked-ok", "said to be good"], ["ng", "said to be defective"]].map(([kind, text]) => make("span", { class: kind, text })))),
      make("section", { class: "panel" }, this.table),
      make("section", { class: "panel" }, this.order),
      make("section", { class: "panel wide" }, this.changedTitle, this.changed));
    this.slider.addEventListener("input", () => this.set((this.slider.value / STEPS) * this.top));
    this.field.addEventListener("change", () => this.set(Number(this.field.value)));
    for (const select of [this.newest, this.camera, this.now]) {
      select.addEventListener("change", () => {
        if (select !== this.newest) this.wanted = null;
        if (select === this.camera) this.now.value = "";
        this.refresh();
      });
    }
    this.canvas.addEventListener("pointerdown", (event) => { this.canvas.setPointerCapture(event.pointerId); this.drag(event); });
    this.canvas.addEventListener("pointermove", (event) => event.buttons && this.drag(event));
  }

  forget() {
    Object.assign(this, { histogram: null, current: null, wanted: null, top: 1, next: 0 });
    this.thresholds = [];
    this.now.replaceChildren();
    this.showNone();
  }

  showNone() {
    this.cards.clear();
    this.changed.replaceChildren();
    this.table.replaceChildren(make("p", { class: "soft", text: "Waiting for parts." }));
  }

  enter() {
    this.refresh();
  }

  onBox(box) {
    const names = box.cameras.map((camera) => camera.name);
    if (this.camera.dataset.names !== names.join()) {
      this.camera.dataset.names = names.join();
      this.camera.replaceChildren(this.camera.options[0], ...names.map((name) => make("option", { value: name, text: name })));
    }
    if (performance.now() >= this.next) this.refresh();
  }

  query() {
    return { box: this.page.chosen, camera: this.camera.value, newest: this.newest.value, now: this.now.value };
  }

  async refresh() {
    this.next = performance.now() + REFRESH_MS;
    const { chosen } = this.page;
    const found = await get("/api/preview", this.query()).catch(() => null);
    if (found === null || chosen !== this.page.chosen) return;
    if (found.histogram === null) return;
    this.histogram = found.histogram;
    this.offer(found.thresholds);
    this.current = found.current;
    this.top = found.histogram.top;
    if (this.wanted === null && this.current !== null) this.set(this.current);
    else this.preview();
  }

  /** Where regions have thresholds of their own, one of them is asked about. */
  offer(thresholds) {
    this.thresholds = thresholds;
    this.nowLabel.hidden = thresholds.length < 2;
    const { value } = this.now;
    const values = thresholds.map((one) => String(one.value));
    if (values.join() !== this.now.dataset.values) {
      this.now.dataset.values = values.join();
      this.now.replaceChildren(...thresholds.map((one) => make("option", { value: String(one.value), text: `${one.region ?? "some region"}: ${number(one.value)}` })));
    }
    this.now.value = values.includes(value) ? value : values[0];
  }

  /** The region whose threshold is meant: "" the image's, null unknown. */
  region() {
    if (this.thresholds.length < 2) return "";
    return this.thresholds.find((one) => String(one.value) === this.now.value)?.region ?? null;
  }

  drag(event) {
    if (!this.plot) return;
    const share = (event.offsetX - this.plot.left) / (this.plot.right - this.plot.left);
    this.set(Math.min(Math.max(share, 0.001), 1) * this.top);
  }

  set(value) {
    if (!(value > 0) || !Number.isFinite(value)) return;
    this.wanted = value;
    this.slider.value = String(Math.round((value / this.top) * STEPS));
    this.slider.setAttribute("aria-valuetext", number(value));
    if (document.activeElement !== this.field || Number(this.field.value) !== value) this.field.value = value.toFixed(4);
    this.redraw();
    this.preview();
  }

  redraw() {
    if (this.histogram) this.plot = drawHistogram(this.canvas, this.histogram, this.current, this.wanted);
  }

  /** One question at a time, however fast the line is moved; the last one is always asked. */
  async preview() {
    this.redraw();
    if (this.wanted === null) return this.showOrder();
    this.again = true;
    if (this.asking) return;
    this.asking = true;
    while (this.again) {
      this.again = false;
      const { chosen } = this.page;
      const found = await get("/api/preview", { ...this.query(), threshold: this.wanted }).catch((error) => error);
      if (found instanceof Refused) toast(found.message, "bad");
      else if (chosen === this.page.chosen) this.show(found);
    }
    this.asking = false;
  }

  show(found) {
    // No part of this camera, or a server that started anew: there is nothing to count.
    if (found.n === undefined) return this.showNone();
    const row = (title, now, then, more = "") => make("tr", {}, make("th", { scope: "row", text: title }), make("td", { text: now }), make("td", { class: "then", text: then }), make("td", { class: "soft", text: more }));
    const interval = found.false_reject_interval;
    const rows = [
      row("Rejected", count(found.rejected_before), count(found.rejected_after), `of ${count(found.n)} inspected parts`),
      row("Newly rejected", "", count(found.newly_rejected), "passed by the line, rejected by the preview"),
      row("Newly passed", "", count(found.newly_passed), "rejected by the line, passed by the preview"),
      row("False rejects", "", interval === null ? "–" : percent(found.false_reject_rate, 2),
        interval === null ? "no part counts as good yet" : `${count(found.false_rejects)} of ${count(found.good)} good parts; 95 %: ${percent(interval[0], 2)} to ${percent(interval[1], 2)}`),
      row("Escapes", "", found.bad_marked ? `${found.escapes} of ${found.bad_marked}` : "–",
        found.bad_marked ? "of the parts that people said are defective" : "nobody has marked a defective part yet"),
    ];
    this.table.replaceChildren(
      make("table", { class: "compare" }, make("thead", {}, make("tr", {}, ...["", "as judged", `at ${number(found.threshold, 4)}`, ""].map((text) => make("th", { scope: "col", text })))), make("tbody", {}, ...rows)),
      make("p", { class: "soft", text: `Good are parts that people marked so (${found.good_marked}) or that the line passed and nobody objected to.${found.kept ? ` ${count(found.kept)} parts were judged on other grounds than the score (late, areas too small); they stay as they are.` : ""}${found.n_others ? ` ${count(found.n_others)} parts were judged by another region's threshold and are left out.` : ""}` }));
    setText(this.changedTitle, `Parts that would be judged otherwise (${found.changed.length}${found.changed.length === 24 ? " or more" : ""} of those with pictures)`);
    this.cards = placeCards(this.changed, this.cards, found.changed, this.page);
    this.showOrder();
  }

  showOrder() {
    const { about, chosen } = this.page;
    const { control } = about.boxes[chosen];
    const value = (this.wanted ?? this.current ?? 0).toFixed(4);
    const region = this.region();
    const may = about.role === "engineer" && control !== null && this.wanted !== null && region !== null;
    const where = [this.camera.value && `camera ${this.camera.value}`, region && `region ${region}`].filter(Boolean).join(", ");
    const key = `${may}${value}${control}${where}${region}`;
    if (this.order.dataset.shown === key) return;
    this.order.dataset.shown = key;
    const why = region === null ? "No part that this threshold rejected is known here, so the page does not know its region's name." : control === null ? "This page was started without the box's control socket (serve --control)." : "Only an engineer may do that here (serve --role engineer, or an engineer's password).";
    const command = `skrd4ad control --connect ${control ?? "tcp://BOX:5558"} threshold ${value}${this.camera.value ? ` --camera ${this.camera.value}` : ""}${region === "" ? "" : ` --region ${region ?? "NAME"}`}`;
    this.order.replaceChildren(
      make("h2", { text: "Have the box judge by it" }),
      make("p", { class: "soft", text: `From the next part on, ${where ? `for ${where}` : "for all its cameras"}, until the line ends. The plan keeps its own threshold; skrd4ad calibrate threshold changes that.` }),
      ...(may
        ? [make("button", { type: "button", class: "primary", id: "send-threshold", text: `Judge by ${value} from now on`, on: { click: () => this.send(Number(value)) } })]
        : [make("p", { text: why }), make("code", { class: "command", text: command })]));
  }

  async send(value) {
    const { page } = this;
    const name = page.box?.box ?? "the box";
    if (!(await ask(`${name} will judge by ${value} instead of ${number(this.current, 4)} from its next part on. The order is kept in its audit list.`, "Change it"))) return;
    try {
      const done = await post("/api/threshold", { box: page.chosen, value, camera: this.camera.value, region: this.region(), who: memory.get("who", "") });
      toast(`${name} judges by ${done.value} now (revision ${done.revision})`);
      this.refresh();
    } catch (error) {
      toast(`Not changed: ${error.message}`, "bad");
    }
  }
}
