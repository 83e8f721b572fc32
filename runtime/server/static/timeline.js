// Where each identity was, and when: a row each, a bar a visit, coloured by rig.

import { $, h, reconcile, s, say } from "./dom.js";
import { clock, identityColour, minute, moment, rigColour } from "./format.js";
import { current, nameOf, now, on, state } from "./store.js";
import { openWho } from "./who.js";

const ROWS = 14;
const ROW_PX = 30;
const AXIS_PX = 22;
const LEAST_PX = 4;
const TICKS = [30, 60, 120, 300, 600, 1800, 3600, 7200, 14400];

let drawnAt = 0;

export function startTimeline() {
  $("timeline-plot").replaceChildren(h("div", { class: "names" }), h("div"));
  for (const topic of ["event", "events", "identities"]) on(topic, draw);
  on("run", () => now() - drawnAt > spanOf() / 300 && draw()); // time goes on
  $("spans").addEventListener("change", draw);
  new ResizeObserver(draw).observe($("timeline-plot"));
}

const spanOf = () => Number(document.querySelector("#spans input:checked").value);

function draw() {
  const to = now();
  const from = to - spanOf();
  drawnAt = to;
  const rows = rowsOf(from).slice(0, ROWS);
  $("no-visits").hidden = rows.length > 0;
  const plot = $("timeline-plot");
  plot.hidden = !rows.length;
  drawLegend(rows);
  if (!rows.length || !plot.clientWidth) return;
  const [names, bars] = plot.children;
  reconcile(names, rows, ([visit]) => visit.id, makeName, (e, [visit]) => say(e.querySelector(".who"), nameOf(visit.id)));
  bars.replaceChildren(drawBars(rows, from, to, bars.clientWidth));
}

/** The visits of each identity since `from`, the last seen first. */
function rowsOf(from) {
  const visits = new Map();
  for (const event of [...state.events].reverse()) { // a track's end replaces its sighting
    if (!["sighting", "track_end"].includes(event.event) || !event.identity) continue;
    const begin = event.start_s;
    const end = event.end_s ?? event.time_s;
    visits.set(`${event.rig} ${event.track} ${begin}`, { id: current(event.identity), rig: event.rig, begin, end });
  }
  for (const rig of state.run?.rigs ?? []) prolong(visits, rig);
  const rows = new Map();
  for (const visit of visits.values()) {
    if (visit.end >= from) rows.set(visit.id, [...(rows.get(visit.id) ?? []), visit]);
  }
  const last = (row) => Math.max(...row.map((visit) => visit.end));
  return [...rows.values()].sort((a, b) => last(b) - last(a));
}

/** Whoever is in view is there until now. */
function prolong(visits, rig) {
  const inView = new Set(rig.tracks.filter((t) => t.identity).map((t) => `${current(t.identity)}`));
  for (const visit of visits.values()) {
    if (visit.rig === rig.name && inView.has(visit.id) && now() - visit.end < 60) visit.end = now();
  }
}

function drawLegend(rows) {
  const rigs = [...new Set([...(state.run?.rigs ?? []).map((rig) => rig.name), ...rows.flat().map((visit) => visit.rig)])];
  reconcile($("legend"), rigs, (rig) => rig, (rig) => h("li", {}, h("span", { class: "dot" }), rig),
    (item, rig) => (item.firstChild.style.background = rigColour(rig)));
}

function makeName([visit]) {
  const dot = h("span", { class: "dot" });
  dot.style.background = identityColour(visit.id);
  return h("button", { class: "name", "data-item": true, onclick: () => openWho(visit.id) }, dot, h("span", { class: "who" }));
}

function drawBars(rows, from, to, wide) {
  const height = rows.length * ROW_PX + AXIS_PX;
  const x = (time_s) => ((Math.min(Math.max(time_s, from), to) - from) / (to - from)) * wide;
  return s("svg", { width: wide, height, role: "list", "aria-label": "Visits" }, axis(from, to, x, height, wide),
    rows.map((row, i) => s("g", { role: "listitem", "aria-label": words(row) },
      s("line", { class: "grid", x1: 0, x2: wide, y1: (i + 1) * ROW_PX, y2: (i + 1) * ROW_PX }),
      row.map((visit) => bar(visit, x, i)))));
}

function bar(visit, x, row) {
  const left = x(visit.begin);
  return s("rect", { x: left, y: row * ROW_PX + 7, width: Math.max(LEAST_PX, x(visit.end) - left), height: ROW_PX - 14, rx: 3, fill: rigColour(visit.rig) },
    s("title", {}, `${nameOf(visit.id)} at ${visit.rig}, ${clock(visit.begin)} to ${clock(visit.end)}`));
}

function words(row) {
  const visits = [...row].sort((a, b) => a.begin - b.begin).slice(-8);
  return `${nameOf(row[0].id)}: ${visits.map((v) => `${v.rig} ${moment(v.begin)}`).join(", ")}`;
}

function axis(from, to, x, height, wide) {
  const step = TICKS.find((t) => (to - from) / t <= wide / 70) ?? 14400;
  const zone = new Date(to * 1000).getTimezoneOffset() * 60;
  const marks = [];
  for (let t = Math.ceil((from - zone) / step) * step + zone; t < to; t += step) {
    const label = step < 60 ? clock(t) : minute(t);
    const at = x(t);
    marks.push(s("line", { class: "grid", x1: at, x2: at, y1: 0, y2: height - AXIS_PX }));
    if (at > 24 && at < wide - 24) marks.push(s("text", { x: at, y: height - 5, "text-anchor": "middle" }, label));
  }
  return s("g", { "aria-hidden": "true" }, marks);
}
