// The charts. Each is one function of its data; nothing is kept from one drawing to the next.

import { Plot } from "./canvas.js";
import { clock, number, percent } from "./dom.js";

const LIVE_PARTS = 400;
const short = (value) => (value >= 10 ? value.toFixed(0) : String(+value.toFixed(2)));

/** Scores of the newest parts, newest on the right, on the fixed scale: the threshold is half way. */
export function drawScores(canvas, history) {
  const limit = history.findLast((part) => part.thr > 0)?.thr ?? null;
  const top = limit === null ? Math.max(1e-3, ...history.map((part) => part.score ?? 0)) : 2 * limit;
  const plot = new Plot(canvas, { top });
  if (!plot.usable) return;
  plot.grid(short);
  if (!history.length) return plot.nothing("no parts yet");
  if (limit !== null) plot.limit(limit, `threshold ${number(limit)}`);
  plotParts(plot, history, (part) => part.score ?? top);
}

/** Milliseconds from capture to verdict, with the median and the 99 % line. */
export function drawLatency(canvas, history, { p50, p99 }) {
  const slowest = Math.max(1, ...history.map((part) => part.ms));
  const plot = new Plot(canvas, { top: slowest * 1.1 });
  if (!plot.usable) return;
  plot.grid(short);
  if (!history.length) return plot.nothing("no parts yet");
  plotParts(plot, history, (part) => part.ms);
  plot.limit(p99, `99 %: ${number(p99, 1)} ms`);
  if (p99 > 1.3 * p50) plot.limit(p50, `median ${number(p50, 1)} ms`, "soft");
}

function plotParts(plot, history, valueOf) {
  // The rejects last, so that no good part covers one.
  const at = (index) => plot.x((index + 0.5 + LIVE_PARTS - history.length) / LIVE_PARTS);
  history.forEach((part, index) => part.verdict === "ok" && plot.mark("ok", at(index), plot.y(valueOf(part))));
  history.forEach((part, index) => part.verdict !== "ok" && plot.mark(part.verdict, at(index), plot.y(valueOf(part))));
}

/** Share of good parts in each minute of the last hour. */
export function drawYield(canvas, minutes) {
  const shares = minutes.map(shareOk);
  const lowest = Math.min(0.99, ...shares);
  const bottom = [0.98, 0.95, 0.9, 0.8, 0.5, 0].find((one) => one < lowest) ?? 0;
  const plot = new Plot(canvas, { top: 1, bottom, foot: 22 });
  if (!plot.usable) return;
  plot.grid((value) => `${Math.round(100 * value * 10) / 10} %`, 3);
  if (!minutes.length) return plot.nothing("no parts yet");
  const [first, last] = [minutes[0].t, minutes.at(-1).t];
  const from = Math.min(first, last - 900);
  const at = (t) => plot.x((t - from) / Math.max(last - from, 60));
  plot.pen.strokeStyle = plot.pen.fillStyle = plot.colour("ok-mark");
  plot.pen.lineWidth = 2;
  plot.line(minutes.map((minute, index) => [at(minute.t), plot.y(shares[index])]));
  minutes.forEach((minute, index) => {
    plot.pen.beginPath();
    plot.pen.arc(at(minute.t), plot.y(shares[index]), 2.5, 0, 7);
    plot.pen.fill();
  });
  plot.label(clock(new Date(from * 1000)).slice(0, 5), plot.left, plot.height - 8);
  plot.label(clock(new Date(last * 1000)).slice(0, 5), plot.right, plot.height - 8, "right");
}

export const shareOk = (minute) => minute.ok / (minute.ok + minute.ng + minute.review + minute.err);

/** Many thousand parts as bands: lowest to highest, the median on top, the threshold as it was. */
export function drawHistory(canvas, groups) {
  const limits = groups.map((group) => group.thr).filter((limit) => limit > 0);
  const top = limits.length ? 2 * Math.max(...limits) : Math.max(1e-3, ...groups.map((group) => group.max ?? 0));
  const plot = new Plot(canvas, { top, foot: 22 });
  if (!plot.usable) return;
  plot.grid(short);
  if (!groups.length) return plot.nothing("no parts yet");
  const at = (index) => plot.x((index + 0.5) / groups.length);
  const wide = Math.max(1.5, (plot.right - plot.left) / groups.length - 1);
  groups.forEach((group, index) => {
    if (group.max === null) return;
    plot.pen.fillStyle = plot.colour("band");
    const [low, high] = [plot.y(group.min), plot.y(group.max)];
    plot.pen.fillRect(at(index) - wide / 2, high, wide, Math.max(low - high, 1.5));
    if (group.not_ok) plot.mark("ng", at(index), high);
  });
  plot.pen.strokeStyle = plot.colour("accent");
  plot.pen.lineWidth = 2;
  plot.line(groups.flatMap((group, index) => (group.median === null ? [] : [[at(index), plot.y(group.median)]])));
  plot.pen.strokeStyle = plot.colour("ink");
  plot.pen.setLineDash([6, 4]);
  plot.pen.lineWidth = 1.5;
  plot.line(groups.flatMap((group, index) => (group.thr > 0 ? [[at(index), plot.y(group.thr)]] : [])));
  plot.pen.setLineDash([]);
  if (limits.length) plot.label(`threshold ${number(limits.at(-1))}`, plot.right, plot.y(limits.at(-1)) - 9, "right", "ink");
  plot.label(clock(new Date(groups[0].t0 * 1000)), plot.left, plot.height - 8);
  plot.label(clock(new Date(groups.at(-1).t1 * 1000)), plot.right, plot.height - 8, "right");
}

const STACK = [["passed", "ok-mark"], ["marked_ok", "accent"], ["rejected", "review-mark"], ["marked_ng", "ng-mark"]];

/** How many parts have which score; bars grow with the square root, so that single ones show. */
export function drawHistogram(canvas, histogram, current, wanted) {
  const bins = histogram.passed.length;
  const totals = histogram.passed.map((_, bin) => STACK.reduce((sum, [name]) => sum + histogram[name][bin], 0));
  const most = Math.max(1, ...totals);
  const plot = new Plot(canvas, { top: Math.sqrt(most) * 1.08, foot: 22 });
  if (!plot.usable) return plot;
  const values = [0, 0.04, 0.25, 1].map((share) => Math.round(share * most));
  plot.pen.strokeStyle = plot.colour("line");
  for (const value of new Set(values)) {
    const y = Math.round(plot.y(Math.sqrt(value))) + 0.5;
    plot.pen.lineWidth = 1;
    plot.pen.strokeStyle = plot.colour("line");
    plot.line([[plot.left, y], [plot.right, y]]);
    plot.label(String(value), plot.left - 8, y, "right");
  }
  const wide = (plot.right - plot.left) / bins;
  totals.forEach((total, bin) => {
    let below = 0;
    for (const [name, colour] of STACK) {
      const value = histogram[name][bin];
      if (!value) continue;
      // The whole bar is as high as the root of its total; its colours share it in proportion.
      const height = (plot.base - plot.y(Math.sqrt(total))) * (value / total);
      plot.pen.fillStyle = plot.colour(colour);
      plot.pen.fillRect(plot.left + bin * wide + 0.5, plot.base - below - height, Math.max(wide - 1, 1), height);
      below += height;
    }
  });
  if (!totals.some(Boolean)) plot.nothing("no inspected parts yet");
  // Their words stand on the outer sides, so that two lines close together stay readable.
  const left = current !== null && wanted !== null && wanted < current;
  for (const [value, word, colour, y, leftwards] of [[current, "now", "soft", 14, !left], [wanted, "preview", "accent", 30, left]]) {
    if (value === null) continue;
    const x = plot.x(Math.min(value / histogram.top, 1));
    plot.pen.strokeStyle = plot.colour(colour);
    plot.pen.lineWidth = 2;
    plot.pen.setLineDash(word === "now" ? [6, 4] : []);
    plot.line([[x, plot.head], [x, plot.base]]);
    plot.pen.setLineDash([]);
    plot.label(`${word} ${number(value)}`, leftwards ? x - 6 : x + 6, y, leftwards ? "right" : "left", colour);
  }
  plot.label("0", plot.left, plot.height - 8, "center");
  plot.label(`score ${number(histogram.top, 2)} and more`, plot.right, plot.height - 8, "right");
  return plot;
}

/** For those who cannot see the charts: the same in a sentence. */
export function describe(canvas, history) {
  const bad = history.filter((part) => part.verdict !== "ok").length;
  canvas.setAttribute("aria-label", `${history.length} parts, ${bad} of them not ok (${percent(bad / Math.max(history.length, 1))})`);
}
