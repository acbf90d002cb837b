// A part's picture with its defect map over it, always both of the same part.

import { keyOf, make, nameOf, number, setText } from "./dom.js";

/** Draws into `element`. `show` may be called far more often than pictures can be loaded. */
export class Scene {
  constructor(element, { outlines = false, empty = "no picture", onShown = () => {} } = {}) {
    this.element = element;
    this.empty = empty;
    this.onShown = onShown;
    this.outlines = outlines;
    this.frame = make("div", { class: "frame" });
    this.none = make("p", { class: "no-picture", text: empty });
    element.classList.add("scene");
    element.replaceChildren(this.frame, this.none);
    this.shownKey = "";
    this.cleared = false;
    this.wanted = null;
    this.loading = false;
  }

  /** `part` as the server describes it, of the box with this index; null empties the scene. */
  show(part, box) {
    if (part === null || (!part.picture && !part.overlay)) {
      this.clear(this.empty);
      return;
    }
    this.cleared = false;
    const key = `${box}/${keyOf(part)}/${Boolean(part.picture)}/${Boolean(part.overlay)}`;
    if (key === this.shownKey) {
      this.wanted = null;
      return;
    }
    this.wanted = { part, box, key };
    if (!this.loading) this.load();
  }

  clear(sentence) {
    this.wanted = null;
    this.cleared = true;
    this.shownKey = "";
    this.frame.replaceChildren();
    setText(this.none, sentence);
    this.none.hidden = false;
    delete this.element.dataset.key;
    this.onShown(null);
  }

  async load() {
    this.loading = true;
    while (this.wanted !== null) {
      const { part, box, key } = this.wanted;
      this.wanted = null;
      const pair = await Promise.all(layers(part, box).map(loaded)).catch(() => null);
      if (this.cleared) continue;
      if (pair !== null) this.place(part, pair, key);
      else if (this.wanted === null) this.clear("this picture is not kept any more");
    }
    this.loading = false;
  }

  place(part, images, key) {
    this.shownKey = key;
    const size = part.picture ?? { width: part.overlay.width, height: part.overlay.height };
    this.frame.style.setProperty("--ratio", String(size.width / size.height));
    const [first, second] = images;
    if (part.picture && part.overlay) lay(second, part.overlay, size);
    const outlines = this.outlines && part.picture ? part.regions.map((one, at) => outline(one, at, size)) : [];
    this.frame.replaceChildren(first, ...(second ? [second] : []), ...outlines);
    this.none.hidden = true;
    this.element.dataset.key = key;
    this.onShown(part);
  }
}

function layers(part, box) {
  const place = `${box}/${part.boot}/${part.seq}`;
  const alt = `${nameOf(part)}, ${part.verdict}`;
  if (!part.picture) return [{ src: `/map/${place}.png`, alt: `defect map of ${alt}`, kind: "map alone" }];
  const picture = { src: `/picture/${place}.jpg`, alt: `picture of ${alt}`, kind: "picture" };
  if (!part.overlay) return [picture];
  return [picture, { src: `/overlay/${place}.png`, alt: `its defect map`, kind: "map" }];
}

async function loaded({ src, alt, kind }) {
  const image = make("img", { class: kind, alt, draggable: "false" });
  image.src = src;
  await image.decode();
  return image;
}

/** The map covers what the network saw of the picture: a region of interest, perhaps. */
function lay(image, place, size) {
  // Places are in pixel centres; the picture begins half a pixel before its first one.
  image.style.left = `${(100 * (place.x + 0.5)) / size.width}%`;
  image.style.top = `${(100 * (place.y + 0.5)) / size.height}%`;
  image.style.width = `${(100 * place.width) / size.width}%`;
  image.style.height = `${(100 * place.height) / size.height}%`;
}

function outline(region, at, size) {
  const [x, y, width, height] = region.bbox;
  const element = make("div", { class: "outline", title: `${region.name}: score ${number(region.score)}` });
  element.append(make("span", { text: String(at + 1) }));
  element.style.left = `${(100 * x) / size.width}%`;
  element.style.top = `${(100 * y) / size.height}%`;
  element.style.width = `${(100 * width) / size.width}%`;
  element.style.height = `${(100 * height) / size.height}%`;
  return element;
}
