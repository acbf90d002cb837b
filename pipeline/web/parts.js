// The gallery of parts that were not ok, with its filters, under the history of the scores.

import { drawHistory } from "./charts.js";
import { WORDS, byId, clockOfNs, keyOf, make, nameOf, number, setText, shape } from "./dom.js";
import { Scene } from "./scene.js";
import { get } from "./server.js";

const HISTORY_MS = 5000;
const GALLERY_MS = 1000;

export class PartsView {
  constructor(page) {
    this.page = page;
    this.cards = new Map();
    this.forget();
    for (const name of ["camera", "kind", "time", "order"]) byId(`filter-${name}`).addEventListener("change", () => this.fetch());
    for (const button of byId("filter-verdict").children) button.addEventListener("click", () => this.pickVerdict(button));
    byId("filters").addEventListener("submit", (event) => event.preventDefault());
    byId("newer").addEventListener("click", () => { scrollTo(0, 0); this.fetch(); });
  }

  forget() {
    this.version = -1;
    this.nextGallery = this.nextHistory = 0;
    this.groups = null;
    this.parts = [];
    this.cards.clear();
    byId("gallery").replaceChildren();
    byId("newer").hidden = true;
  }

  enter() {
    this.nextHistory = 0;
    if (this.page.box) this.onBox(this.page.box);
  }

  redraw() {
    if (this.groups) drawHistory(byId("history"), this.groups);
  }

  onBox(box) {
    const now = performance.now();
    if (now >= this.nextHistory) {
      this.nextHistory = now + HISTORY_MS;
      this.fetchHistory();
    }
    if (box.gallery_version === this.version || now < this.nextGallery) return;
    this.nextGallery = now + GALLERY_MS;
    // A card must not move away under a finger: then newer ones wait until they are asked for.
    if (this.version >= 0 && this.busy()) byId("newer").hidden = false;
    else this.fetch();
  }

  busy() {
    return scrollY > 250 || byId("gallery").matches(":hover, :focus-within") || byId("part").open;
  }

  pickVerdict(chosen) {
    for (const button of byId("filter-verdict").children) button.setAttribute("aria-pressed", String(button === chosen));
    this.fetch();
  }

  query() {
    const span = Number(byId("filter-time").value);
    return {
      box: this.page.chosen,
      verdict: byId("filter-verdict").querySelector("[aria-pressed=true]").value,
      camera: byId("filter-camera").value,
      kind: byId("filter-kind").value,
      since: span ? (Date.now() / 1000 - span).toFixed(0) : "",
      order: byId("filter-order").value,
    };
  }

  async fetch() {
    const { chosen } = this.page;
    const version = this.page.box?.gallery_version ?? -1;
    const found = await get("/api/parts", this.query()).catch(() => null);
    if (found === null || chosen !== this.page.chosen) return;
    this.version = version;
    byId("newer").hidden = true;
    offer(byId("filter-camera"), found.cameras);
    offer(byId("filter-kind"), found.kinds, (kind) => kind.replace(":", ": "));
    const more = found.found > found.parts.length ? `, the first ${found.parts.length} shown` : "";
    setText(byId("found"), `${found.found} of ${found.total} kept parts${more}`);
    byId("gallery-none").hidden = found.parts.length > 0;
    this.parts = found.parts;
    this.place();
  }

  place() {
    this.cards = placeCards(byId("gallery"), this.cards, this.parts, this.page);
  }

  async fetchHistory() {
    const { chosen } = this.page;
    const found = await get("/api/trends", { box: chosen, camera: byId("filter-camera").value }).catch(() => null);
    if (found === null || chosen !== this.page.chosen) return;
    this.groups = found.history;
    const parts = found.history.reduce((sum, group) => sum + group.n, 0);
    setText(byId("history-span"), `${parts} parts`);
    drawHistory(byId("history"), this.groups);
  }
}

/** Fills a gallery, with the cards that are in it already where there are some. Returns those it has now, by part. */
export function placeCards(gallery, before, parts, page) {
  const placed = parts.map((part) => {
    const card = before.get(keyOf(part)) ?? new Card();
    // Anew each time: a card that stays would step through the parts of the time when it came.
    card.onOpen = () => page.dialog.open(parts, part, page.chosen);
    card.show(part, page.chosen);
    return [keyOf(part), card];
  });
  gallery.replaceChildren(...placed.map(([, card]) => card.element));
  return new Map(placed);
}

/** A part in a gallery. */
class Card {
  constructor() {
    this.picture = make("span", { class: "small" });
    this.scene = new Scene(this.picture, { empty: "no picture" });
    this.badge = make("span", { class: "badge" });
    this.score = make("span", { class: "score" });
    this.name = make("span", { class: "name" });
    this.said = make("span", { class: "said" });
    this.element = make("button", { type: "button", class: "card", on: { click: () => this.onOpen() } },
      this.picture, make("span", { class: "line" }, this.badge, this.score), this.name, this.said);
    // Pictures of cards that nobody scrolls to are never fetched.
    new IntersectionObserver((entries, observer) => {
      if (!entries.some((entry) => entry.isIntersecting)) return;
      observer.disconnect();
      this.visible = true;
      this.scene.show(this.part, this.box);
    }, { rootMargin: "300px" }).observe(this.element);
  }

  show(part, box) {
    Object.assign(this, { part, box });
    this.element.className = `card ${part.verdict}`;
    this.badge.className = `badge ${part.verdict}`;
    this.badge.replaceChildren(shape(part.verdict), WORDS[part.verdict]);
    setText(this.score, part.score === null ? part.reason.join(", ") : number(part.score));
    setText(this.name, `${clockOfNs(part.t_pub)} · ${nameOf(part)}`);
    setText(this.said, part.mark ? (part.mark.truth === "ok" ? "✓ said to be good" : "✗ said to be defective") : "");
    if (this.visible) this.scene.show(part, box);
  }
}

/** Fills a choice with what there is, keeping what is chosen. */
function offer(select, values, write = (value) => value) {
  const key = values.join();
  if (select.dataset.values === key) return;
  select.dataset.values = key;
  const { value } = select;
  select.replaceChildren(select.options[0], ...values.map((one) => make("option", { value: one, text: write(one) })));
  select.value = values.includes(value) ? value : "";
}
