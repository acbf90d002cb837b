// The stream of snapshots, and the watchdog that says when it is not one any more.

import { get } from "./server.js";

export const STALE_MS = 3000;
const HISTORY = 400;
const RETRY_MS = 2000;

/** Follows /events. `onBoxes(boxes)` after each snapshot; `silence()` is how long nothing came. */
export class Stream {
  constructor(onBoxes) {
    this.onBoxes = onBoxes;
    this.boxes = [];
    this.heard = this.heardAt = null;
    this.fault = null;
    this.connect();
  }

  connect() {
    const source = new EventSource("/events");
    source.addEventListener("open", () => {
      // A new connection begins with the whole history.
      for (const box of this.boxes) box.history = [];
    });
    source.addEventListener("beat", () => this.hear());
    source.addEventListener("message", (message) => this.take(JSON.parse(message.data)));
    source.addEventListener("error", () => {
      if (source.readyState !== EventSource.CLOSED) return;
      // Refused for good. Asking for anything leads to the login where the session is over.
      get("/api/about").catch(() => null).then(() => setTimeout(() => this.connect(), RETRY_MS));
    });
  }

  hear() {
    this.heard = performance.now();
    this.heardAt = Date.now();
  }

  take(state) {
    this.hear();
    this.boxes = state.boxes.map((box, index) => {
      const before = this.boxes[index];
      const history = before ? before.history.concat(box.history) : box.history;
      return { ...box, history: history.slice(-HISTORY), added: box.history, at: this.heard };
    });
    this.onBoxes(this.boxes);
  }

  /** Milliseconds since anything came; null when nothing ever did. */
  silence() {
    if (this.heard === null) return null;
    // The first clock stands still while a tablet sleeps, the second one jumps when it is set.
    return Math.max(performance.now() - this.heard, Date.now() - this.heardAt);
  }

  get live() {
    const silence = this.silence();
    return this.fault === null && silence !== null && silence < STALE_MS;
  }
}
