// The picture with the shapes on it: drawing, dragging, and the same with the keyboard.

import { svgElement } from "./dom.js";
import { clamp, doubledArea, middle, moved, rectangle, withNewPoint, withPoint, withoutPoint } from "./region_shapes.js";

const HANDLE_PX = 7;
const SMALLEST_PX = 4;
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

/** `owner` has shapes, chosen (id or null), tool, and takes `choose(id)`, `change(shapes)`, `add(points)`. */
export class RegionCanvas {
  constructor(owner) {
    this.owner = owner;
    this.size = { width: 1, height: 1 };
    this.svg = svgElement("svg", { class: "drawing", role: "group", "aria-label": "picture with the regions" });
    this.image = svgElement("image", { x: -0.5, y: -0.5, preserveAspectRatio: "none" });
    this.layer = svgElement("g");
    this.svg.append(hatching(), this.image, this.layer);
    this.draft = null;
    this.drag = null;
    this.svg.addEventListener("pointerdown", (event) => this.down(event));
    this.svg.addEventListener("pointermove", (event) => this.move(event));
    this.svg.addEventListener("pointerup", (event) => this.up(event));
    this.svg.addEventListener("pointercancel", () => this.cancel());
    this.svg.addEventListener("dblclick", () => this.finish());
    this.svg.addEventListener("keydown", (event) => this.key(event));
  }

  setPicture(address, size) {
    this.size = size;
    this.svg.setAttribute("viewBox", `-0.5 -0.5 ${size.width} ${size.height}`);
    for (const [name, value] of Object.entries({ ...size, href: address })) this.image.setAttribute(name, value);
    this.draw();
  }

  /** Picture pixels for one pixel of the screen. */
  get scale() {
    return this.size.width / Math.max(this.svg.getBoundingClientRect().width, 1);
  }

  at(event) {
    const place = this.svg.getBoundingClientRect();
    const share = [(event.clientX - place.left) / place.width, (event.clientY - place.top) / place.height];
    return clamp([share[0] * this.size.width - 0.5, share[1] * this.size.height - 0.5], this.size);
  }

  // ---- drawing --------------------------------------------------------------------------------

  draw(preview = null) {
    const focus = this.svg.contains(document.activeElement) ? document.activeElement.dataset.key : undefined;
    const { shapes, chosen } = this.owner;
    const pieces = shapes.map((one, index) => this.shape(preview?.id === one.id ? { ...one, points: preview.points } : one, index));
    const active = shapes.find((one) => one.id === chosen);
    if (active && this.owner.tool === "select") pieces.push(...this.handles(preview?.id === chosen ? { ...active, points: preview.points } : active));
    if (this.draft) pieces.push(...this.drafted());
    this.layer.replaceChildren(...pieces);
    if (focus !== undefined) this.layer.querySelector(`[data-key="${focus}"]`)?.focus();
  }

  shape(one, index) {
    const group = svgElement("g", {
      class: `region ${one.ignore ? "ignore" : `hue${index % 6}`}${one.id === this.owner.chosen ? " chosen" : ""}`,
      "data-id": one.id, "data-key": `s${one.id}`, tabindex: 0, role: "button",
      "aria-label": one.ignore ? "ignored area" : `region ${one.name}`,
    });
    group.append(svgElement("polygon", { points: one.points.join(" ") }));
    const [x, y] = one.points.reduce((best, point) => (point[1] < best[1] ? point : best));
    const label = svgElement("text", { x: Math.min(Math.max(x, 2), this.size.width - 60 * this.scale), y: Math.max(y - 6 * this.scale, 13 * this.scale), "font-size": 13 * this.scale });
    label.textContent = one.ignore ? "ignored" : one.name;
    group.append(label);
    return group;
  }

  handles(one) {
    const radius = HANDLE_PX * this.scale;
    const between = one.points.map((point, at) => {
      const [x, y] = middle(point, one.points[(at + 1) % one.points.length]);
      return svgElement("circle", { class: "between", cx: x, cy: y, r: radius * 0.75, "data-between": at });
    });
    const corners = one.points.map(([x, y], at) => svgElement("circle", {
      class: "corner", cx: x, cy: y, r: radius, "data-corner": at, "data-key": `c${at}`, tabindex: 0, role: "button",
      "aria-label": `corner ${at + 1} at ${x}, ${y}`,
    }));
    return [...between, ...corners];
  }

  drafted() {
    const points = this.draft.cursor ? [...this.draft.points, this.draft.cursor] : this.draft.points;
    const lines = svgElement(this.owner.tool === "rectangle" ? "polygon" : "polyline", { class: "draft", points: points.join(" ") });
    if (this.owner.tool === "rectangle") return [lines];
    const radius = HANDLE_PX * this.scale;
    return [lines, ...this.draft.points.map(([x, y], at) => svgElement("circle", { class: at ? "between" : "corner", cx: x, cy: y, r: radius, "data-close": at ? "" : "yes" }))];
  }

  // ---- pointer --------------------------------------------------------------------------------

  down(event) {
    if (event.button !== 0) return;
    const [point, { tool, shapes, chosen }] = [this.at(event), this.owner];
    this.svg.setPointerCapture(event.pointerId);
    if (tool === "rectangle") {
      this.draft = { start: point, points: [] };
    } else if (tool === "polygon") {
      if (event.target.dataset.close === "yes" && this.draft.points.length >= 3) return this.finish();
      const last = this.draft?.points.at(-1);
      const far = !last || Math.hypot(point[0] - last[0], point[1] - last[1]) > SMALLEST_PX * this.scale;
      this.draft = { points: [...(this.draft?.points ?? []), ...(far ? [point] : [])], cursor: null };
      this.draw();
    } else if (event.target.dataset.corner !== undefined || event.target.dataset.between !== undefined) {
      const one = shapes.find((shape) => shape.id === chosen);
      const between = event.target.dataset.between;
      const at = Number(between ?? event.target.dataset.corner) + (between === undefined ? 0 : 1);
      const points = between === undefined ? one.points : withNewPoint(one.points, at - 1, point);
      this.drag = { id: one.id, from: point, points, at };
      event.target.focus?.();
    } else {
      const found = event.target.closest(".region");
      const id = found === null ? null : Number(found.dataset.id);
      this.owner.choose(id);
      const one = shapes.find((shape) => shape.id === id);
      const pane = this.svg.parentElement;
      this.drag = one ? { id, from: point, points: one.points, at: null } : { pan: [event.clientX + pane.scrollLeft, event.clientY + pane.scrollTop] };
      if (one) this.layer.querySelector(`[data-key="s${id}"]`)?.focus();
    }
  }

  move(event) {
    const point = this.at(event);
    if (this.draft?.start) {
      this.draft.points = rectangle(this.draft.start, point, this.size);
      this.draw();
    } else if (this.draft) {
      this.draft.cursor = point;
      this.draw();
    } else if (this.drag?.pan) {
      const pane = this.svg.parentElement;
      pane.scrollTo(this.drag.pan[0] - event.clientX, this.drag.pan[1] - event.clientY);
    } else if (this.drag) {
      this.draw({ id: this.drag.id, points: this.dragged(point) });
    }
  }

  dragged(point) {
    const { from, points, at } = this.drag;
    if (at !== null) return withPoint(points, at, point);
    return moved(points, point[0] - from[0], point[1] - from[1], this.size);
  }

  up(event) {
    if (this.draft?.start) {
      const { points } = this.draft;
      this.draft = null;
      const least = 2 * (SMALLEST_PX * this.scale) ** 2;
      if (points.length && doubledArea(points) > least) this.owner.add(points);
      else this.draw();
    } else if (this.drag && !this.drag.pan) {
      const point = this.at(event);
      const still = Math.hypot(point[0] - this.drag.from[0], point[1] - this.drag.from[1]) < 1 * this.scale;
      const { id } = this.drag;
      const points = this.dragged(point);
      this.drag = null;
      if (still) this.draw();
      else this.replace(id, points);
    }
    this.drag = null;
  }

  /** Ends the polygon that is being drawn; with fewer than three corners it is dropped. */
  finish() {
    const points = this.draft?.points ?? [];
    this.draft = null;
    if (points.length >= 3 && doubledArea(points) > 0) this.owner.add(points);
    else this.draw();
  }

  cancel() {
    this.draft = this.drag = null;
    this.draw();
  }

  replace(id, points) {
    this.owner.change(this.owner.shapes.map((one) => (one.id === id ? { ...one, points } : one)));
  }

  // ---- keyboard -------------------------------------------------------------------------------

  key(event) {
    if (event.key === "Escape" && this.draft) return this.cancel();
    if (event.key === "Enter" && this.draft) return this.finish();
    const group = event.target.closest(".region");
    if (group && (event.key === "Enter" || event.key === " ")) {
      event.preventDefault();
      return this.owner.choose(Number(group.dataset.id));
    }
    const one = this.owner.shapes.find((shape) => shape.id === (group ? Number(group.dataset.id) : this.owner.chosen));
    if (!one) return;
    const corner = event.target.dataset.corner;
    if (event.key in ARROWS) {
      event.preventDefault();
      const far = event.shiftKey ? 10 : 1;
      const [dx, dy] = ARROWS[event.key].map((step) => step * far);
      if (corner === undefined) return this.replace(one.id, moved(one.points, dx, dy, this.size));
      const [x, y] = one.points[corner];
      this.replace(one.id, withPoint(one.points, Number(corner), clamp([x + dx, y + dy], this.size)));
    } else if (event.key === "Delete" || event.key === "Backspace") {
      event.preventDefault();
      if (corner !== undefined) this.replace(one.id, withoutPoint(one.points, Number(corner)));
      else this.owner.remove(one.id);
    }
  }
}

function hatching() {
  const pattern = svgElement("pattern", { id: "hatch", width: 8, height: 8, patternUnits: "userSpaceOnUse", patternTransform: "rotate(45)" });
  pattern.append(svgElement("rect", { class: "hatch-back", width: 8, height: 8 }), svgElement("rect", { class: "hatch-line", width: 3, height: 8 }));
  const defs = svgElement("defs");
  defs.append(pattern);
  return defs;
}
