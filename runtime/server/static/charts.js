// How the run goes: frames, latency, match rate. Each value as a number, then as it was.

import { $, h, s } from "./dom.js";
import { minute, rigColour } from "./format.js";
import { on, state } from "./store.js";

const HEIGHT = 120;
const LEFT = 40;
const BELOW = 18;
const ROLLING = 24; // samples that a match rate is taken over: 2 minutes

const CHARTS = [
  { id: "frames", title: "Frames per second", unit: "", lines: frames, digits: 1 },
  { id: "latency", title: "Latency of decisions", unit: " ms", lines: latency, digits: 0 },
  { id: "rate", title: "Match rate", unit: " %", lines: rate, digits: 0, most: 100 },
];

export function startCharts() {
  const cards = CHARTS.map((chart) => h("figure", { class: "card chart", id: `chart-${chart.id}` },
    h("figcaption", {}, h("span", {}, chart.title), h("span", { class: "now" })), h("div", { class: "plot" })));
  $("chart-row").replaceChildren(...cards);
  on("samples", draw);
  new ResizeObserver(draw).observe($("chart-row"));
}

function draw() {
  for (const chart of CHARTS) drawChart($(`chart-${chart.id}`), chart);
}

function drawChart(card, chart) {
  const lines = chart.lines(state.samples);
  const plot = card.querySelector(".plot");
  const told = lines.map((line) => ({ ...line, last: line.points.at(-1)?.[1] })).filter((line) => line.last != null);
  card.querySelector(".now").replaceChildren(...told.map((line) => h("span", { class: "key" }, swatch(line), line.name && `${line.name} `, h("b", {}, line.last.toFixed(chart.digits) + chart.unit))));
  if (!told.length) return plot.replaceChildren(h("p", { class: "empty" }, "Nothing yet"));
  const width = plot.clientWidth || 300;
  plot.replaceChildren(graph(lines, chart, width));
}

function swatch(line) {
  const element = h("span", { class: "swatch" });
  element.style.background = line.colour;
  return element;
}

function graph(lines, chart, width) {
  const points = lines.flatMap((line) => line.points);
  const to = state.samples.at(-1).time_s;
  const from = Math.min(to - 120, points[0][0]);
  const top = chart.most ?? nice(Math.max(...points.map(([, y]) => y)));
  const x = (t) => LEFT + ((t - from) / (to - from)) * (width - LEFT - 4);
  const y = (v) => 6 + (1 - v / top) * (HEIGHT - BELOW - 6);
  const words = lines.map((line) => `${line.name || chart.title} ${line.points.at(-1)?.[1].toFixed(chart.digits) ?? "none"}${chart.unit}`).join(", ");
  return s("svg", { width, height: HEIGHT, role: "img", "aria-label": words },
    [0, 0.5, 1].map((share) => s("g", {},
      s("line", { class: "grid", x1: LEFT, x2: width, y1: y(top * share), y2: y(top * share) }),
      s("text", { x: LEFT - 6, y: y(top * share) + 4, "text-anchor": "end" }, String(top * share)))),
    s("text", { x: LEFT, y: HEIGHT - 3 }, minute(from)),
    s("text", { x: width - 2, y: HEIGHT - 3, "text-anchor": "end" }, minute(to)),
    lines.map((line) => stroke(line, x, y)));
}

function stroke(line, x, y) {
  const at = line.points.map(([t, v]) => `${x(t).toFixed(1)},${y(v).toFixed(1)}`);
  const element = at.length === 1
    ? s("circle", { cx: at[0].split(",")[0], cy: at[0].split(",")[1], r: 2 })
    : s("polyline", { points: at.join(" "), fill: "none", "stroke-width": 1.75, "stroke-linejoin": "round" });
  element.style[at.length === 1 ? "fill" : "stroke"] = line.colour;
  return element;
}

function nice(value) {
  const power = 10 ** Math.floor(Math.log10(Math.max(value, 1e-9)));
  return [1, 2, 3, 4, 5, 6, 8, 10].map((n) => n * power).find((n) => n >= value);
}

function frames(samples) {
  const rigs = [...new Set(samples.flatMap((sample) => Object.keys(sample.fps)))];
  return rigs.map((rig) => ({
    name: rig, colour: rigColour(rig),
    points: samples.filter((sample) => rig in sample.fps).slice(1).map((sample) => [sample.time_s, sample.fps[rig]]),
  }));
}

function latency(samples) {
  const line = (key) => samples.filter((sample) => sample[key] != null).map((sample) => [sample.time_s, 1000 * sample[key]]);
  return [
    { name: "p95", colour: "var(--series-2)", points: line("latency_p95_s") },
    { name: "p50", colour: "var(--series-1)", points: line("latency_p50_s") },
  ].filter(({ points }) => points.length);
}

/** Known over all decisions, over the last two minutes of each sample. */
function rate(samples) {
  const points = samples.flatMap((sample, i) => {
    const recent = samples.slice(Math.max(0, i - ROLLING + 1), i + 1);
    const known = recent.reduce((sum, each) => sum + each.known, 0);
    const all = known + recent.reduce((sum, each) => sum + each.new, 0);
    return all ? [[sample.time_s, (100 * known) / all]] : [];
  });
  return points.length ? [{ name: "", colour: "var(--series-1)", points }] : [];
}
