"use strict";
// Drawing: SVG elements, scales, axes, tooltips. Uses text nodes and attributes only, never
// markup: names come from a user's data.

const SVG = "http://www.w3.org/2000/svg";
const charts = {}; // name of a chart -> function (host, data)
const memory = {}; // settings of the user, kept when a newer page replaces this one

function svg(tag, attributes = {}, parent = null, text = null) {
  const element = document.createElementNS(SVG, tag);
  for (const [key, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined) element.setAttribute(key, value);
  }
  if (text !== null) element.textContent = text;
  if (parent) parent.appendChild(element);
  return element;
}

function html(tag, attributes = {}, parent = null, text = null) {
  const element = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== null) element.textContent = text;
  if (parent) parent.appendChild(element);
  return element;
}

function clipped(text, width) {
  const most = Math.floor(width / 6.8);
  return text.length <= most ? text : `…${text.slice(text.length - most + 1)}`;
}

// --- numbers -------------------------------------------------------------------------------

function numberText(value) {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-3 || size >= 1e5)) {
    return value.toExponential(1).replace(".0e", "e").replace("e+", "e");
  }
  return String(Number(value.toPrecision(4)));
}

function percentText(value, digits = 1) {
  return value === null || value === undefined ? "–" : `${(100 * value).toFixed(digits)} %`;
}

function timeText(seconds) {
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60 ? `${whole % 60} s` : ""}`.trim();
  const minutes = Math.round(whole / 60);
  return `${Math.floor(minutes / 60)} h${minutes % 60 ? ` ${minutes % 60} min` : ""}`;
}

// --- scales --------------------------------------------------------------------------------

function linear(low, high, from, to) {
  const span = high - low || 1;
  const scale = (value) => from + ((value - low) / span) * (to - from);
  scale.invert = (place) => low + ((place - from) / (to - from)) * span;
  scale.ticks = (count) => niceTicks(low, high, count);
  return scale;
}

function logarithmic(low, high, from, to) {
  const inner = linear(Math.log10(low), Math.log10(high), from, to);
  const scale = (value) => inner(Math.log10(value));
  scale.invert = (place) => 10 ** inner.invert(place);
  scale.ticks = (count) => {
    const first = Math.ceil(Math.log10(low) - 1e-9);
    const last = Math.floor(Math.log10(high) + 1e-9);
    if (last - first < 1) return niceTicks(low, high, count);
    const step = Math.ceil((last - first + 1) / Math.max(2, count));
    const ticks = [];
    for (let power = first; power <= last; power += step) ticks.push(10 ** power);
    return ticks;
  };
  return scale;
}

function niceTicks(low, high, count) {
  if (!(high > low)) return [low];
  const rough = (high - low) / Math.max(1, count);
  const unit = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((f) => f * unit).find((each) => each >= rough * 0.999);
  const ticks = [];
  for (let at = Math.ceil(low / step - 1e-9); at * step <= high + step * 1e-9; at += 1) {
    ticks.push(Number((at * step).toPrecision(12)));
  }
  return ticks;
}

function timeTicks(seconds, count) {
  const steps = [1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400, 21600, 43200,
    86400, 172800, 604800];
  const step = steps.find((each) => seconds / each <= count) || Math.ceil(seconds / count / 604800) * 604800;
  const ticks = [];
  for (let at = 0; at <= seconds; at += step) ticks.push(at);
  return ticks;
}

function extent(values, pad = 0.05) {
  const known = values.filter((value) => value !== null && value !== undefined);
  if (!known.length) return [0, 1];
  let low = Infinity;
  let high = -Infinity;
  for (const value of known) {
    low = Math.min(low, value);
    high = Math.max(high, value);
  }
  const margin = high > low ? (high - low) * pad : Math.abs(high) * 0.1 || 0.5;
  return [low - margin, high + margin];
}

// --- frames --------------------------------------------------------------------------------

// An SVG as wide as its host: text keeps its size on a phone. Returns the group to draw in.
function canvasFor(host, height, margin) {
  host.replaceChildren();
  const width = Math.max(200, host.clientWidth);
  const root = svg("svg", { width, height, viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true" }, host);
  return {
    root, width, height,
    left: margin.left, right: width - margin.right, top: margin.top, bottom: height - margin.bottom,
  };
}

// Axes with grid lines. x and y: {scale, ticks, format, label}
function axes(frame, x, y) {
  const group = svg("g", { class: "axes" }, frame.root);
  for (const tick of y.ticks) {
    const at = y.scale(tick);
    svg("line", { x1: frame.left, x2: frame.right, y1: at, y2: at, class: "grid" }, group);
    svg("text", { x: frame.left - 6, y: at + 4, "text-anchor": "end" }, group, y.format(tick));
  }
  let busyUntil = -Infinity;
  for (const tick of x.ticks) {
    const at = x.scale(tick);
    const text = x.format(tick);
    const half = text.length * 3.4;
    const inside = Math.min(Math.max(at, frame.left + half - 8), frame.right - half + 8);
    if (inside - half < busyUntil + 4) continue;
    busyUntil = inside + half;
    svg("line", { x1: at, x2: at, y1: frame.bottom, y2: frame.bottom + 4, class: "tick" }, group);
    svg("text", { x: inside, y: frame.bottom + 17, "text-anchor": "middle" }, group, text);
  }
  svg("line", { x1: frame.left, x2: frame.right, y1: frame.bottom, y2: frame.bottom, class: "tick" }, group);
  if (x.label) {
    svg("text", { x: (frame.left + frame.right) / 2, y: frame.height - 4, "text-anchor": "middle", class: "name" },
      group, x.label);
  }
  if (y.label) {
    svg("text", { x: 4, y: 12, class: "name" }, group, y.label);
  }
  return group;
}

function legend(host, entries) {
  const list = html("ul", { class: "legend" }, host);
  for (const [mark, text] of entries) {
    const item = html("li", {}, list);
    const root = svg("svg", { width: 26, height: 12, "aria-hidden": "true" }, item);
    mark(root);
    item.appendChild(document.createTextNode(` ${text}`));
  }
  return list;
}

// Shapes besides colours: not every reader can distinguish hues.
const SHAPES = [
  (x, y, r) => `M${x - r},${y}a${r},${r} 0 1,0 ${2 * r},0a${r},${r} 0 1,0 ${-2 * r},0`,
  (x, y, r) => `M${x - r},${y - r}h${2 * r}v${2 * r}h${-2 * r}z`,
  (x, y, r) => `M${x},${y - 1.25 * r}L${x + 1.15 * r},${y + 0.85 * r}H${x - 1.15 * r}z`,
  (x, y, r) => `M${x},${y - 1.35 * r}L${x + 1.35 * r},${y}L${x},${y + 1.35 * r}L${x - 1.35 * r},${y}z`,
  (x, y, r) => `M${x - r},${y - r}L${x + r},${y + r}M${x - r},${y + r}L${x + r},${y - r}`,
];

function mark(parent, shape, x, y, r, attributes) {
  const data = SHAPES[shape % SHAPES.length](Number(x.toFixed(1)), Number(y.toFixed(1)), r);
  return svg("path", { d: data, ...attributes }, parent);
}

// --- tooltip -------------------------------------------------------------------------------

const tip = { box: null };

function tooltip(element, text) {
  element.addEventListener("pointerenter", (event) => showTip(event, text));
  element.addEventListener("pointermove", moveTip);
  element.addEventListener("pointerleave", hideTip);
}

function showTip(event, text) {
  if (!tip.box) tip.box = html("div", { id: "tip", role: "status" }, document.body);
  tip.box.textContent = typeof text === "function" ? text() : text;
  tip.box.hidden = false;
  moveTip(event);
}

function moveTip(event) {
  if (!tip.box || tip.box.hidden) return;
  const { offsetWidth: width, offsetHeight: height } = tip.box;
  const left = Math.min(event.clientX + 14, document.documentElement.clientWidth - width - 6);
  const above = event.clientY - height - 12;
  tip.box.style.left = `${Math.max(6, left)}px`;
  tip.box.style.top = `${above > 4 ? above : event.clientY + 18}px`;
}

function hideTip() {
  if (tip.box) tip.box.hidden = true;
}

// --- states of trials ----------------------------------------------------------------------

const FATES = {
  COMPLETE: { name: "finished", css: "var(--finished)", dash: null, width: 1.8, shape: 0 },
  PRUNED: { name: "stopped early", css: "var(--pruned)", dash: null, width: 1, shape: 1 },
  FAIL: { name: "failed", css: "var(--failed)", dash: "4 3", width: 1.6, shape: 4 },
  RUNNING: { name: "running", css: "var(--running)", dash: "1 3", width: 2, shape: 3 },
};

function fate(state) {
  return FATES[state] || { name: state.toLowerCase(), css: "var(--muted)", dash: null, width: 1, shape: 2 };
}

function fateLegend(host, trials, hollow = []) {
  const states = [...new Set(trials.map((trial) => trial.s))].sort(
    (a, b) => Object.keys(FATES).indexOf(a) - Object.keys(FATES).indexOf(b));
  legend(host, states.map((state) => [
    (root) => {
      const one = fate(state);
      svg("line", { x1: 0, x2: 26, y1: 6, y2: 6, stroke: one.css, "stroke-width": one.width + 0.4,
        "stroke-dasharray": one.dash }, root);
      mark(root, one.shape, 13, 6, 3.5, {
        fill: one.shape === 4 ? "none" : hollow.includes(state) ? "var(--card)" : one.css, stroke: one.css,
        "stroke-width": 1.6 });
    },
    `${fate(state).name} (${trials.filter((trial) => trial.s === state).length})`,
  ]));
}

function isDark() {
  return matchMedia("(prefers-color-scheme: dark)").matches
    && !document.documentElement.classList.contains("printing");
}
