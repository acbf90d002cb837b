// Regions as values: from the file's form to shapes that can be drawn, and back. Pure.
//
// Points are [x, y] in pixels of the captured image; whole numbers are pixel centres, so the image
// reaches from -0.5 to width - 0.5.

let lastId = 0;
const newId = () => ++lastId;
const tidy = (value) => Math.round(value * 10) / 10;

/** A shape: {id, ignore, name, points, threshold (null: the plan's), more: the file's other keys}. */
export function shapeOf(points, ignore, name) {
  return { id: newId(), ignore, name, points, threshold: null, more: {} };
}

export function fromFile(file) {
  if (file === null) return [];
  const named = file.regions.map(({ name, polygon, threshold, ...more }) => ({
    ...shapeOf(polygon, false, name),
    threshold: threshold ?? null,
    more,
  }));
  return [...file.ignore.map((points) => shapeOf(points, true, "")), ...named];
}

/** `before` is the file as it was: what this editor does not show goes back as it came. */
export function toFile(shapes, size, before) {
  return {
    ...before,
    image_width: size.width,
    image_height: size.height,
    ignore: shapes.filter((one) => one.ignore).map((one) => one.points),
    regions: shapes.filter((one) => !one.ignore).map((one) => ({
      ...one.more,
      name: one.name,
      polygon: one.points,
      threshold: one.threshold,
    })),
  };
}

export function clamp([x, y], size) {
  const within = (value, length) => tidy(Math.min(Math.max(value, -0.5), length - 0.5));
  return [within(x, size.width), within(y, size.height)];
}

export function rectangle([x0, y0], [x1, y1], size) {
  const [left, right] = [Math.min(x0, x1), Math.max(x0, x1)];
  const [top, bottom] = [Math.min(y0, y1), Math.max(y0, y1)];
  return [[left, top], [right, top], [right, bottom], [left, bottom]].map((point) => clamp(point, size));
}

/** The whole shape further by (dx, dy), as far as the image lets it. */
export function moved(points, dx, dy, size) {
  const xs = points.map(([x]) => x);
  const ys = points.map(([, y]) => y);
  const limited = (by, low, high, length) => Math.min(Math.max(by, -0.5 - low), length - 0.5 - high);
  const x = limited(dx, Math.min(...xs), Math.max(...xs), size.width);
  const y = limited(dy, Math.min(...ys), Math.max(...ys), size.height);
  return points.map(([px, py]) => [tidy(px + x), tidy(py + y)]);
}

export const withPoint = (points, at, point) => points.map((old, index) => (index === at ? point : old));

export const withNewPoint = (points, after, point) => [...points.slice(0, after + 1), point, ...points.slice(after + 1)];

export const withoutPoint = (points, at) => (points.length > 3 ? points.filter((_, index) => index !== at) : points);

export const middle = ([x0, y0], [x1, y1]) => [tidy((x0 + x1) / 2), tidy((y0 + y1) / 2)];

export function scaled(shapes, from, to) {
  const [sx, sy] = [to.width / from.width, to.height / from.height];
  const point = ([x, y]) => clamp([(x + 0.5) * sx - 0.5, (y + 0.5) * sy - 0.5], to);
  return shapes.map((one) => ({ ...one, points: one.points.map(point) }));
}

/** Twice the area; 0 for what is no area at all. */
export function doubledArea(points) {
  return Math.abs(points.reduce((sum, [x0, y0], index) => {
    const [x1, y1] = points[(index + 1) % points.length];
    return sum + x0 * y1 - x1 * y0;
  }, 0));
}

export function freeName(shapes) {
  const taken = new Set(shapes.map((one) => one.name));
  let count = 1;
  while (taken.has(`region${count}`)) count += 1;
  return `region${count}`;
}

/** What a person did, step by step, and back. */
export class Steps {
  constructor(shapes) {
    this.reset(shapes);
  }

  reset(shapes) {
    [this.past, this.now, this.future, this.saved] = [[], shapes, [], shapes];
  }

  get dirty() {
    return this.now !== this.saved;
  }

  do(shapes) {
    this.past.push(this.now);
    this.now = shapes;
    this.future = [];
  }

  undo() {
    if (!this.past.length) return;
    this.future.push(this.now);
    this.now = this.past.pop();
  }

  redo() {
    if (!this.future.length) return;
    this.past.push(this.now);
    this.now = this.future.pop();
  }
}
