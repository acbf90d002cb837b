// One part, closely: picture and map, what was measured, and what it really was.

import { WORDS, byId, clockOfNs, keyOf, make, memory, nameOf, number, shape } from "./dom.js";
import { Scene } from "./scene.js";
import { post } from "./server.js";
import { toast } from "./toast.js";

const SAID = { ok: "really good", ng: "really defective" };

export class PartDialog {
  constructor(page) {
    this.page = page;
    this.element = byId("part");
    this.picture = make("div", { class: "large", tabindex: "0", "aria-label": "picture with the defect map" });
    this.scene = new Scene(this.picture, { outlines: true, empty: "no picture of this part is kept" });
    this.title = make("h2", { id: "part-title" });
    this.facts = make("dl", { class: "facts" });
    this.feedback = make("div", { class: "feedback" });
    const button = (text, work, kind = "") => make("button", { type: "button", class: kind, text, on: { click: work } });
    this.before = button("← newer", () => this.step(-1));
    this.after = button("older →", () => this.step(1));
    this.element.append(
      make("div", { class: "bar head" }, this.title, this.before, this.after, button("Close", () => this.element.close())),
      make("div", { class: "two" }, this.picture, make("div", { class: "side" }, this.facts, this.feedback)),
    );
    this.element.addEventListener("click", (event) => event.target === this.element && this.element.close());
    this.element.addEventListener("keydown", (event) => {
      if (event.target.tagName === "INPUT") return;
      if (event.key === "ArrowLeft") this.step(-1);
      if (event.key === "ArrowRight") this.step(1);
    });
  }

  /** `parts` can be stepped through; `box` is the index of their box. */
  open(parts, part, box) {
    Object.assign(this, { parts, box, at: parts.indexOf(part) });
    this.show();
    if (!this.element.open) this.element.showModal();
  }

  step(by) {
    const next = this.at + by;
    if (next < 0 || next >= this.parts.length) return;
    this.at = next;
    this.show();
  }

  show() {
    const part = this.parts[this.at];
    this.before.disabled = this.at <= 0;
    this.after.disabled = this.at >= this.parts.length - 1;
    this.before.hidden = this.after.hidden = this.parts.length < 2;
    const badge = make("span", { class: `badge ${part.verdict}` }, shape(part.verdict), WORDS[part.verdict]);
    this.title.replaceChildren(badge, ` ${nameOf(part)}`);
    this.scene.show(part, this.box);
    this.facts.replaceChildren(...factsOf(part).flatMap(([term, value]) => [make("dt", { text: term }), make("dd", { text: value })]));
    this.showFeedback(part);
  }

  showFeedback(part) {
    const control = this.page.about.boxes[this.box].control !== null;
    const rejected = part.verdict !== "ok";
    const choice = (truth, text) => {
      const pressed = part.mark?.truth === truth;
      return make("button", { type: "button", class: `truth ${truth}`, "aria-pressed": String(pressed), disabled: !control, on: { click: () => this.say(part, truth) } }, shape(truth), text);
    };
    const rows = [
      make("h3", { text: "What was it really?" }),
      make("div", { class: "bar" },
        choice("ok", rejected ? "Good: a false reject" : "Good, as judged"),
        choice("ng", rejected ? "Defective, as judged" : "Defective: it escaped")),
    ];
    if (!this.page.about.who && control) rows.push(this.nameField());
    if (part.mark) rows.push(make("p", { class: "soft", text: `${part.mark.who || "somebody"} said: ${SAID[part.mark.truth]}` }));
    if (!control) {
      rows.push(make("p", { class: "soft", text: `This page was started without the box's control socket (serve --control). On the box: skrd4ad control feedback ${part.seq} ok|ng` }));
    }
    this.feedback.replaceChildren(...rows);
  }

  nameField() {
    const field = make("input", { name: "who", maxlength: "40", autocomplete: "name", value: memory.get("who", "") });
    field.addEventListener("change", () => memory.set("who", field.value.trim()));
    return make("label", { class: "who", text: "Your name " }, field);
  }

  async say(part, truth) {
    const field = this.feedback.querySelector("input[name=who]");
    if (field) memory.set("who", field.value.trim());
    const body = { box: this.box, boot: part.boot, seq: part.seq, truth, who: memory.get("who", "") };
    for (const button of this.feedback.querySelectorAll("button")) button.disabled = true;
    try {
      part.mark = await post("/api/feedback", body);
      toast(`${nameOf(part)}: ${SAID[truth]}, noted by the box`);
    } catch (error) {
      toast(`Not noted: ${error.message}`, "bad");
    }
    if (this.element.open && keyOf(this.parts[this.at]) === keyOf(part)) this.showFeedback(part);
  }
}

function factsOf(part) {
  const rows = [
    ["Score", `${number(part.score)} (threshold ${number(part.thr)})`],
    ["Why", [...part.reason, part.detail].filter(Boolean).join(", ") || "below the threshold"],
    ["Captured", `${clockOfNs(part.frame.t_cap)} by ${part.cam}, part ${part.cam_seq}`],
    ["Event", `${part.seq} of ${part.box}`],
    ["Latency", `${number(part.lat_us.total / 1000, 1)} ms, of it inference ${number(part.lat_us.infer / 1000, 1)} ms`],
    ["Plan", `${part.model.name || "–"} (threshold revision ${part.model.thr_rev})`],
  ];
  part.regions.forEach((one, at) =>
    rows.push([`Defect ${at + 1}`, `${one.name}: ${number(one.score)} over ${number(one.thr)}, ${one.area_px} px at (${one.peak.join(", ")})`]));
  if (part.n_regions > part.regions.length) rows.push(["", `and ${part.n_regions - part.regions.length} more defects`]);
  if (part.sim) rows.push(["Rendered", part.truth ?? "yes"]);
  if (!part.overlay) rows.push(["Map", part.map.avail ? "not kept here (any more)" : "the line sent none of this part"]);
  return rows;
}
