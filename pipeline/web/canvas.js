// A canvas with axes, in the colours of the present theme and sharp on every screen.

const FONT = "12px system-ui, sans-serif";

/** The drawing place of one chart: `x(0..1)`, `y(value)` in CSS pixels, and a pen. */
export class Plot {
  constructor(canvas, { top, bottom = 0, gutter = 44, foot = 6 }) {
    const ratio = window.devicePixelRatio || 1;
    this.width = canvas.clientWidth;
    this.height = canvas.clientHeight;
    const [width, height] = [Math.round(this.width * ratio), Math.round(this.height * ratio)];
    if (canvas.width !== width || canvas.height !== height) [canvas.width, canvas.height] = [width, height];
    this.pen = canvas.getContext("2d");
    this.pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    this.pen.clearRect(0, 0, this.width, this.height);
    this.pen.font = FONT;
    this.style = getComputedStyle(canvas);
    this.colours = new Map();
    Object.assign(this, { top, bottom, left: gutter, right: this.width - 10, head: 8, base: this.height - foot });
  }

  get usable() {
    return this.width > this.left + 20 && this.height > 20;
  }

  /** Of the present theme. A chart has a thousand marks in four colours: each is looked up once. */
  colour(name) {
    let colour = this.colours.get(name);
    if (colour === undefined) {
      colour = this.style.getPropertyValue(`--${name}`).trim();
      this.colours.set(name, colour);
    }
    return colour;
  }

  x(share) {
    return this.left + share * (this.right - this.left);
  }

  y(value) {
    const share = (value - this.bottom) / (this.top - this.bottom);
    return this.base - Math.min(Math.max(share, 0), 1) * (this.base - this.head);
  }

  /** Horizontal lines with their values, at round places. */
  grid(write, wanted = 4) {
    const step = roundStep((this.top - this.bottom) / wanted);
    this.pen.strokeStyle = this.colour("line");
    this.pen.fillStyle = this.colour("soft");
    this.pen.lineWidth = 1;
    this.pen.textAlign = "right";
    this.pen.textBaseline = "middle";
    for (let value = Math.ceil(this.bottom / step - 1e-9) * step; value <= this.top + 1e-9; value += step) {
      const y = Math.round(this.y(value)) + 0.5;
      this.line([[this.left, y], [this.right, y]]);
      this.pen.fillText(write(value), this.left - 8, y);
    }
  }

  line(points) {
    this.pen.beginPath();
    points.forEach(([x, y], index) => (index ? this.pen.lineTo(x, y) : this.pen.moveTo(x, y)));
    this.pen.stroke();
  }

  /** A dashed line at `value` with a word on it. */
  limit(value, word, colour = "ink") {
    const y = Math.round(this.y(value)) + 0.5;
    this.pen.save();
    this.pen.strokeStyle = this.colour(colour);
    this.pen.lineWidth = 1.5;
    this.pen.setLineDash([6, 4]);
    this.line([[this.left, y], [this.right, y]]);
    this.pen.restore();
    this.label(word, this.right, y - 9, "right", colour);
  }

  label(text, x, y, align = "left", colour = "soft") {
    this.pen.textAlign = align;
    this.pen.textBaseline = "middle";
    this.pen.lineWidth = 3;
    this.pen.strokeStyle = this.colour("panel");
    this.pen.strokeText(text, x, y);
    this.pen.fillStyle = this.colour(colour);
    this.pen.fillText(text, x, y);
  }

  nothing(sentence) {
    this.label(sentence, this.width / 2, this.height / 2, "center");
  }

  /** A point in the shape of its verdict: dot, cross, diamond, square. */
  mark(kind, x, y) {
    const { pen } = this;
    pen.fillStyle = pen.strokeStyle = this.colour(`${kind}-mark`);
    pen.lineWidth = 2;
    if (kind === "ok") {
      pen.fillRect(x - 1.5, y - 1.5, 3, 3);
    } else if (kind === "ng") {
      this.line([[x - 4, y - 4], [x + 4, y + 4]]);
      this.line([[x + 4, y - 4], [x - 4, y + 4]]);
    } else if (kind === "review") {
      pen.beginPath();
      for (const [dx, dy] of [[0, -5], [5, 0], [0, 5], [-5, 0]]) pen.lineTo(x + dx, y + dy);
      pen.fill();
    } else {
      pen.fillRect(x - 4, y - 4, 8, 8);
    }
  }
}

/** 1, 2 or 5 times a power of ten, at least `value`. */
export function roundStep(value) {
  const power = 10 ** Math.floor(Math.log10(Math.max(value, 1e-9)));
  const factor = [1, 2, 5, 10].find((one) => one * power >= value * (1 - 1e-9));
  return factor * power;
}
