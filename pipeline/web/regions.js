// The region editor: where to look, how strictly, and what to ignore; kept in a file by the server.

import { byId, make, nameOf, setText } from "./dom.js";
import { RegionCanvas } from "./region_canvas.js";
import { Steps, freeName, fromFile, scaled, shapeOf, toFile } from "./region_shapes.js";
import { get, post } from "./server.js";
import { ask, toast } from "./toast.js";

const ZOOMS = [100, 150, 200, 300, 400];
// Keys of a region that few need; what an empty field means.
const MORE = [
  ["review_value", "Review up to", null],
  ["grow_threshold", "Grow from", null],
  ["min_area_px", "Smallest, px", 0],
  ["min_area_mm2", "Smallest, mm²", 0],
];
const TOOLS = [["select", "Move"], ["rectangle", "Rectangle"], ["polygon", "Polygon"]];

export class RegionsView {
  constructor(page) {
    this.page = page;
    this.steps = new Steps([]);
    this.tool = "select";
    this.ignoring = false;
    this.editing = "";
    this.zoom = 0;
    this.open = new Set();
    this.canvas = new RegionCanvas(this);
    this.build();
    this.forget();
    addEventListener("beforeunload", (event) => this.steps.dirty && event.preventDefault());
  }

  get shapes() {
    return this.steps.now;
  }

  build() {
    const button = (text, work, more = {}) => make("button", { type: "button", text, on: { click: work }, ...more });
    this.camera = make("select", { id: "regions-camera", on: { change: () => this.pickCamera() } });
    this.tools = make("div", { class: "segments", role: "group", "aria-label": "Tool" },
      ...TOOLS.map(([name, text]) => button(text, () => this.pickTool(name), { "data-tool": name })));
    this.kinds = make("div", { class: "segments", role: "group", "aria-label": "What is drawn" },
      button("Region", () => this.pickKind(false), { "data-ignore": "false" }), button("Ignore", () => this.pickKind(true), { "data-ignore": "true" }));
    this.undo = button("Undo", () => { this.steps.undo(); this.refresh(); });
    this.redo = button("Redo", () => { this.steps.redo(); this.refresh(); });
    this.pane = make("div", { class: "pane" }, this.canvas.svg);
    this.hint = make("p", { class: "soft", role: "status" });
    this.list = make("ol", { class: "shapes" });
    this.saveButton = button("Save", () => this.save(), { class: "primary", id: "save-regions" });
    this.where = make("div", { class: "soft where" });
    this.notice = make("div", { class: "notice", hidden: true });
    byId("regions").append(
      make("section", { class: "panel canvas" },
        make("div", { class: "bar" }, make("label", { text: "Camera " }, this.camera), this.tools, this.kinds, this.undo, this.redo,
          button("−", () => this.zoomBy(-1), { "aria-label": "smaller" }), button("+", () => this.zoomBy(1), { "aria-label": "larger" }),
          button("New picture", () => this.takePicture())),
        this.notice, this.pane, this.hint),
      make("section", { class: "panel list" }, make("h2", { text: "Regions" }),
        make("p", { class: "soft", text: "What is ignored comes first, then the regions in this order: each place of the picture belongs to the first that covers it. The rest is judged by the plan's own threshold." }),
        this.list, make("div", { class: "bar" }, button("Add a rectangle", () => this.addMiddle()), this.saveButton), this.where));
    this.pickTool("select");
    this.pickKind(false);
  }

  /** Another box. What was drawn and not saved for the last one is dropped only after a question. */
  forget() {
    Object.assign(this, { chosen: null, loaded: null, stored: null, size: null, camerasShown: "" });
    this.steps.reset([]);
  }

  enter() {
    if (this.page.box) this.onBox(this.page.box);
  }

  redraw() {
    this.canvas.draw();
  }

  onBox(box) {
    const names = box.cameras.map((camera) => camera.name);
    if (names.join() !== this.camerasShown) {
      this.camerasShown = names.join();
      const { value } = this.camera;
      this.camera.replaceChildren(...names.map((name) => make("option", { value: name, text: name })));
      if (names.includes(value)) this.camera.value = value;
    }
    if (this.loaded === null && names.length) this.load();
    if (this.size === null) this.takePicture();
  }

  async pickCamera() {
    if (this.steps.dirty && !(await ask("What was drawn is not saved yet.", "Drop it"))) {
      this.camera.value = this.loaded;
      return;
    }
    this.load();
    this.takePicture();
  }

  async load() {
    const camera = this.camera.value;
    this.loaded = camera;
    this.steps.reset([]);
    this.chosen = null;
    if (!this.page.about.regions) {
      this.stored = { digest: "", path: "", regions: null };
    } else {
      try {
        this.stored = await get("/api/regions", { box: this.page.chosen, camera });
        if (camera !== this.camera.value) return;
        this.steps.reset(fromFile(this.stored.regions));
      } catch (error) {
        this.stored = { digest: "", path: "", regions: null };
        toast(`The stored regions cannot be read: ${error.message}`, "bad");
      }
    }
    this.refresh();
  }

  /** The newest picture of the camera; it then stays until another one is asked for. */
  takePicture() {
    const camera = this.page.box?.cameras.find((one) => one.name === this.camera.value);
    const part = camera?.pictured;
    if (!part?.picture) {
      setText(this.hint, "There is no picture of this camera yet. (A station file that says pictures: null sends none.)");
      return;
    }
    this.size = { width: part.picture.width, height: part.picture.height };
    this.canvas.setPicture(`/picture/${this.page.chosen}/${part.boot}/${part.seq}.jpg`, this.size);
    this.pictured = nameOf(part);
    this.refresh();
  }

  // ---- what the canvas and the list call --------------------------------------------------------

  choose(id) {
    this.chosen = id;
    this.refresh();
  }

  change(shapes) {
    this.editing = "";
    this.steps.do(shapes);
    this.refresh();
  }

  add(points) {
    const one = shapeOf(points, this.ignoring, this.ignoring ? "" : freeName(this.shapes));
    this.chosen = one.id;
    this.tool = "select";
    this.pickTool("select");
    this.change([...this.shapes, one]);
  }

  remove(id) {
    this.chosen = null;
    this.change(this.shapes.filter((one) => one.id !== id));
  }

  /** While somebody types, the fields stay as they are, and all of it is one step to undo. */
  edit(id, changes) {
    const field = `${id} ${Object.keys(changes)}`;
    const shapes = this.shapes.map((one) => (one.id === id ? { ...one, ...changes } : one));
    if (this.editing === field) this.steps.now = shapes;
    else this.steps.do(shapes);
    this.editing = field;
    this.canvas.draw();
    this.showState();
  }

  shift(id, by) {
    const at = this.shapes.findIndex((one) => one.id === id);
    const other = at + by;
    if (other < 0 || other >= this.shapes.length) return;
    const shapes = [...this.shapes];
    [shapes[at], shapes[other]] = [shapes[other], shapes[at]];
    this.change(shapes);
  }

  addMiddle() {
    if (this.size === null) return;
    const { width, height } = this.size;
    const [x0, x1, y0, y1] = [0.35 * width, 0.65 * width, 0.35 * height, 0.65 * height].map(Math.round);
    this.add([[x0, y0], [x1, y0], [x1, y1], [x0, y1]]);
  }

  // ---- shown ----------------------------------------------------------------------------------

  pickTool(tool) {
    this.tool = tool;
    press(this.tools, (button) => button.dataset.tool === tool);
    this.canvas.svg.dataset.tool = tool;
    if (this.canvas.draft) this.canvas.cancel();
    else this.canvas.draw();
    this.showHint();
  }

  pickKind(ignoring) {
    this.ignoring = ignoring;
    press(this.kinds, (button) => button.dataset.ignore === String(ignoring));
  }

  zoomBy(step) {
    this.zoom = Math.min(Math.max(this.zoom + step, 0), ZOOMS.length - 1);
    this.canvas.svg.style.width = `${ZOOMS[this.zoom]}%`;
    this.canvas.draw();
  }

  showHint() {
    const hints = {
      select: "Drag a region or its corners; the small dots add a corner. With the keyboard: Tab to it, arrows move it (Shift: ten pixels), Delete removes it.",
      rectangle: "Drag from one corner to the opposite one.",
      polygon: "One click for each corner; click the first one again, or press Enter, to close it. Escape drops it.",
    };
    setText(this.hint, hints[this.tool]);
  }

  refresh() {
    this.canvas.draw();
    this.list.replaceChildren(...this.shapes.map((one, index) => this.row(one, index)));
    if (!this.shapes.length) this.list.append(make("li", { class: "soft", text: "None: the whole picture is judged by the plan's threshold." }));
    this.showState();
  }

  showState() {
    this.undo.disabled = !this.steps.past.length;
    this.redo.disabled = !this.steps.future.length;
    this.showWhere();
    this.showNotice();
  }

  row(one, index) {
    const button = (text, label, work) => make("button", { type: "button", text, "aria-label": `${label} ${one.name || "ignored area"}`, on: { click: work } });
    const field = (attributes, work) => make("input", { ...attributes, on: { input: (event) => work(event.target.value.trim()), focus: () => { this.chosen = one.id; this.canvas.draw(); } } });
    const fields = one.ignore
      ? [make("strong", { text: "ignored area" })]
      : [
          make("label", { text: "Name " }, field({ value: one.name, maxlength: "32", class: "name", pattern: "[a-z][a-z0-9_\\-]*" }, (value) => this.edit(one.id, { name: value }))),
          make("label", { text: "Threshold " }, field({ type: "number", step: "any", placeholder: "the plan's", value: one.threshold ?? "" }, (value) => this.edit(one.id, { threshold: value === "" ? null : Number(value) }))),
        ];
    const more = one.ignore ? null : make("details", { open: this.open.has(one.id), on: { toggle: (event) => (event.target.open ? this.open.add(one.id) : this.open.delete(one.id)) } },
      make("summary", { text: "More" }),
      ...MORE.map(([key, text, none]) => make("label", { text: `${text} ` }, field({ type: "number", step: "any", min: "0", placeholder: none === null ? "none" : "0", value: one.more[key] || "" }, (value) =>
        this.edit(one.id, { more: { ...this.shapes.find((now) => now.id === one.id).more, [key]: value === "" ? none : Number(value) } })))));
    return make("li", { class: `${one.ignore ? "ignore" : `hue${index % 6}`}${one.id === this.chosen ? " chosen" : ""}` }, ...fields,
      make("span", { class: "row-tools" }, button("↑", "earlier:", () => this.shift(one.id, -1)), button("↓", "later:", () => this.shift(one.id, 1)), button("✕", "remove", () => this.remove(one.id))), more);
  }

  showWhere() {
    const { about } = this.page;
    const may = about.regions && about.role === "engineer";
    this.saveButton.disabled = !may || !this.steps.dirty || this.size === null;
    this.saveButton.textContent = this.steps.dirty ? "Save" : "Saved";
    if (!about.regions) return this.where.replaceChildren("This page was started without a folder for regions (serve --regions DIR): what is drawn cannot be saved.");
    if (about.role !== "engineer") return this.where.replaceChildren("Only an engineer may save here (serve --role engineer, or an engineer's password).");
    const path = this.stored?.path ?? "";
    this.where.replaceChildren("Kept in ", make("code", { text: path }), ". The line reads it at its next start, where its station file says ", make("code", { text: `regions_folder: ${this.stored?.folder ?? ""}` }), ". See what it covers: ", make("code", { text: `skrd4ad calibrate regions --regions ${path} --preview IMAGE OUT.png` }));
  }

  showNotice() {
    const drawn = this.stored?.regions;
    const other = drawn && this.size && (drawn.image_width !== this.size.width || drawn.image_height !== this.size.height);
    this.notice.hidden = !other || this.fitted === this.stored.digest;
    if (this.notice.hidden) return;
    const from = { width: drawn.image_width, height: drawn.image_height };
    this.notice.replaceChildren(
      `These regions were drawn on ${from.width} × ${from.height} pixels; the camera gives ${this.size.width} × ${this.size.height}. `,
      make("button", { type: "button", text: "Scale them to this picture", on: { click: () => { this.fitted = this.stored.digest; this.change(scaled(this.shapes, from, this.size)); } } }));
  }

  async save() {
    const { page, loaded: camera } = this;
    const shapes = this.shapes;
    const body = { box: page.chosen, camera, digest: this.stored.digest, regions: toFile(shapes, this.size, this.stored.regions ?? {}) };
    this.saveButton.disabled = true;
    try {
      this.stored = await post("/api/regions", body);
      this.steps.saved = shapes;
      toast(`Saved in ${this.stored.path}`);
    } catch (error) {
      toast(`Not saved: ${error.message}`, "bad");
      if (error.status === 409 && (await ask("Somebody else saved other regions meanwhile. What you drew is still here.", "Drop mine, read theirs"))) return this.load();
    }
    this.refresh();
  }
}

function press(group, isPressed) {
  for (const button of group.children) button.setAttribute("aria-pressed", String(isPressed(button)));
}
