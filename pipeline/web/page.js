// The page's program: one snapshot after the other from /events, shown and never sent anywhere.
"use strict";

const HISTORY = 400;
const byId = (id) => document.getElementById(id);
let history = [];
let boot = null;
let galleryShown = "";

function text(id, value) {
  const element = byId(id);
  if (element.textContent !== String(value)) element.textContent = value;
}

function number(value, digits) {
  return value === null || value === undefined ? "–" : value.toFixed(digits);
}

function item(list, words, kind) {
  const element = document.createElement("li");
  element.textContent = words;
  element.className = kind;
  list.append(element);
}

// The big word is a verdict only while the stream may be acted on; otherwise it says why not.
function showVerdict(state) {
  const { status, last } = state;
  let word, why, kind;
  if (!status.alive) {
    const ended = status.state === "BYE";
    [word, kind] = [ended ? "STOPPED" : "NO SIGNAL", "none"];
    why = ended ? "the line was stopped" : status.silent_s === null
      ? "nothing has been heard from the line yet" : `silent for ${status.silent_s} s: stop the line`;
  } else if (!status.valid) {
    [word, why, kind] = ["NOT READY", `the line is ${status.state || "starting"}`, "none"];
  } else if (last === null) {
    [word, why, kind] = ["WAITING", "for the first part", "none"];
  } else {
    const names = { ok: "OK", ng: "NG", review: "REVIEW", err: "NOT INSPECTED" };
    [word, kind] = [names[last.verdict], last.verdict];
    why = last.evaluated ? `score ${number(last.score, 3)}, threshold ${number(last.thr, 3)}` : last.detail || "";
    if (last.reason.length) why += ` (${last.reason.join(", ")})`;
    why += ` · ${label(last)}`;
    if (!status.fresh) why += " · LATE";
  }
  text("word", word);
  text("why", why);
  byId("verdict").className = word.length > 6 ? `${kind} long` : kind;
}

function label(part) {
  const name = part.part.id || part.name || `${part.cam} #${part.cam_seq}`;
  return part.sim ? `${name} (rendered${part.truth ? `: ${part.truth}` : ""})` : name;
}

function showAnswers(status) {
  const place = byId("answers");
  place.replaceChildren();
  for (const name of ["alive", "fresh", "contiguous", "valid"]) {
    const element = document.createElement("span");
    element.textContent = `${status[name] ? "✓" : "✗"} ${name}`;
    element.className = status[name] ? "yes" : "no";
    place.append(element);
  }
}

function showCounters(state) {
  const counts = { ok: 0, ng: 0, review: 0, err: 0, ...state.counts };
  for (const name of ["ok", "ng", "review", "err"]) text(`count-${name}`, counts[name]);
  const total = counts.ok + counts.ng + counts.review + counts.err;
  text("yield", total ? `${(100 * counts.ok / total).toFixed(1)} %` : "–");
  text("dropped", state.health.balance ? state.health.balance.dropped : 0);
  const sorted = history.map((entry) => entry.ms).sort((a, b) => a - b);
  const at = (share) => sorted.length ? sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] : null;
  text("p50", number(at(0.5), 1));
  text("p99", number(at(0.99), 1));
}

function showMap(state) {
  const found = state.map;
  byId("map").hidden = !found;
  byId("no-map").hidden = Boolean(found);
  if (!found) return;
  const source = `/map/${found.boot}/${found.seq}.png`;
  if (byId("map").getAttribute("src") !== source) byId("map").setAttribute("src", source);
  const part = state.gallery.find((entry) => entry.boot === found.boot && entry.seq === found.seq) ||
    (state.last && state.last.seq === found.seq ? state.last : null);
  text("map-of", part ? `${label(part)}: ${part.verdict}, score ${number(part.score, 3)}` : `event ${found.seq}`);
}

function showLists(state) {
  const alarms = byId("alarms");
  alarms.replaceChildren();
  for (const alarm of state.alarms) item(alarms, `${alarm.name}: ${alarm.text}`, alarm.severity);
  if (!state.alarms.length) item(alarms, "none", "calm");
  const notices = byId("notices");
  notices.replaceChildren();
  for (const notice of state.notices) {
    const when = notice.t === null ? "" : `${new Date(notice.t / 1e6).toLocaleTimeString()} `;
    item(notices, when + notice.text, notice.kind);
  }
}

function showGallery(parts) {
  const wanted = byId("filter").value;
  const shown = parts.filter((part) => !wanted || part.verdict === wanted);
  const key = wanted + shown.map((part) => `${part.boot}${part.seq}${part.has_map}`).join();
  if (key === galleryShown) return;
  galleryShown = key;
  byId("gallery").replaceChildren(...shown.map((part) => {
    const figure = document.createElement("figure");
    figure.className = part.verdict;
    if (part.has_map) {
      const image = document.createElement("img");
      image.loading = "lazy";
      image.alt = `anomaly map of ${label(part)}`;
      image.src = `/map/${part.boot}/${part.seq}.png`;
      figure.append(image);
    }
    const caption = document.createElement("figcaption");
    const grounds = part.evaluated ? number(part.score, 3) : part.reason.join(", ");
    caption.textContent = `${part.verdict} ${grounds} · ${label(part)}`;
    figure.append(caption);
    return figure;
  }));
}

function draw(id, values, top, limit, colours) {
  const canvas = byId(id);
  const ratio = window.devicePixelRatio || 1;
  const [width, height] = [canvas.clientWidth, canvas.clientHeight];
  canvas.width = width * ratio;
  canvas.height = height * ratio;
  const pen = canvas.getContext("2d");
  pen.scale(ratio, ratio);
  const y = (value) => height - 4 - (height - 8) * Math.min(value / top, 1);
  if (limit) {
    pen.strokeStyle = getComputedStyle(document.body).color;
    pen.setLineDash([6, 4]);
    pen.beginPath();
    pen.moveTo(0, y(limit));
    pen.lineTo(width, y(limit));
    pen.stroke();
  }
  const step = width / HISTORY;
  values.forEach((value, index) => {
    if (value === null) return;
    pen.fillStyle = colours[index];
    pen.fillRect(width - (values.length - index) * step, y(value) - 2, Math.max(step, 3), 4);
  });
}

function showCharts() {
  const style = getComputedStyle(document.documentElement);
  const colours = history.map((entry) => style.getPropertyValue(`--${entry.verdict}`).trim());
  const limits = history.filter((entry) => entry.thr !== null);
  const limit = limits.length ? limits[limits.length - 1].thr : 0;
  draw("scores", history.map((entry) => entry.score), limit > 0 ? 2 * limit : 1, limit, colours);
  const slowest = Math.max(1, ...history.map((entry) => entry.ms));
  draw("latency", history.map((entry) => entry.ms), slowest, 0, colours);
}

function show(state) {
  if (state.last && state.last.boot !== boot) {
    boot = state.last.boot;
    history = [];
  }
  history = history.concat(state.history).slice(-HISTORY);
  text("box", state.box ? `skrd4ad · ${state.box}` : "skrd4ad");
  showVerdict(state);
  showAnswers(state.status);
  showCounters(state);
  showMap(state);
  showLists(state);
  showGallery(state.gallery);
  showCharts();
  latest = state;
}

let latest = null;
byId("filter").addEventListener("change", () => { if (latest) showGallery(latest.gallery); });

const events = new EventSource("/events");
events.addEventListener("open", () => { history = []; });
events.addEventListener("message", (message) => show(JSON.parse(message.data)));
events.addEventListener("error", () => {
  text("word", "NO PAGE SERVER");
  text("why", "skrd4ad serve does not answer: what is shown below is old");
  byId("verdict").className = "none long";
});
