// Charts of the answer and of the search.

function metricText(search, value) {
  return search.percent ? percentText(value) : numberText(value);
}

function metricTick(search) {
  return (value) => (search.percent ? `${numberText(100 * value)} %` : numberText(value));
}

function shortName(name) {
  const parts = name.split(".");
  return parts.length > 1 ? parts.slice(1).join(".") : name;
}

function paramText(axis, value) {
  if (value === null) return "not active";
  return axis.choices ? axis.choices[value] : numberText(value);
}

function trialText(search, trial) {
  const lines = [`trial ${trial.n}: ${fate(trial.s).name}, ${trial.e} epochs`];
  lines.push(`${search.metric} ${metricText(search, trial.v)}`);
  if (trial.o) lines.push(`proposed by: ${trial.o}`);
  if (trial.why) lines.push(trial.why);
  search.axes.forEach((axis, index) => {
    if (trial.p[index] !== null) lines.push(`${shortName(axis.name)} ${paramText(axis, trial.p[index])}`);
  });
  return lines.join("\n");
}

// Test accuracy of winner, control and probe: dots are seeds, the line is the mean.
charts.models = (host, data) => {
  const models = data.models;
  const frame = canvasFor(host, 46 * models.length + 44, { left: 96, right: 64, top: 8, bottom: 36 });
  const [low, high] = extent(models.flatMap((model) => [...model.values, model.mean]), 0.15);
  const x = linear(Math.max(0, low), Math.min(1, high), frame.left, frame.right);
  axes(frame, { scale: x, ticks: x.ticks(5), format: (v) => `${numberText(100 * v)} %`, label: "test accuracy" },
    { scale: (v) => v, ticks: [] });
  models.forEach((model, index) => {
    const y = frame.top + 46 * index + 23;
    const colour = index === 0 ? "var(--finished)" : "var(--muted)";
    svg("text", { x: 0, y: y + 4, class: "label" }, frame.root, model.name);
    svg("line", { x1: x(model.mean), x2: x(model.mean), y1: y - 15, y2: y + 15, stroke: colour, "stroke-width": 3 },
      frame.root);
    model.values.forEach((value, seed) => {
      const dot = mark(frame.root, 0, x(value), y, 5, { fill: colour, "fill-opacity": 0.55, stroke: colour });
      tooltip(dot, `${model.name}, seed ${seed + 1} of ${model.values.length}: ${percentText(value)}`);
    });
    svg("text", { x: frame.right + 8, y: y + 4, class: "label" }, frame.root, percentText(model.mean));
  });
};

charts.curves = (host, data) => {
  const { search } = data;
  const shown = search.trials.filter((trial) => trial.c.length);
  const frame = canvasFor(host, 380, { left: 52, right: 12, top: 22, bottom: 38 });
  const last = Math.max(1, ...shown.map((trial) => trial.e));
  const logTime = Boolean(memory.logCurves);
  const x = logTime && last > 1 ? logarithmic(1, last, frame.left, frame.right)
    : linear(last > 1 ? 1 : 0, Math.max(last, 2), frame.left, frame.right);
  // A diverging curve must not flatten all others.
  const finals = shown.flatMap((trial) => trial.c).filter((v) => v !== null).sort((a, b) => a - b);
  const most = search.percent ? finals[finals.length - 1] : finals[Math.floor(0.98 * (finals.length - 1))];
  const [low, high] = extent([finals[0], most]);
  const y = linear(search.percent ? Math.max(0, low) : low, search.percent ? Math.min(1, high) : high,
    frame.bottom, frame.top);
  const ticks = logTime ? x.ticks(8) : x.ticks(frame.width > 500 ? 10 : 5).filter((v) => v === Math.round(v));
  axes(frame, { scale: x, ticks, format: String, label: "epoch" },
    { scale: y, ticks: y.ticks(6), format: metricTick(search), label: search.metric });
  const clip = svg("clipPath", { id: "clip-curves" }, frame.root);
  svg("rect", { x: frame.left, y: frame.top - 4, width: frame.right - frame.left,
    height: frame.bottom - frame.top + 8 }, clip);
  const area = svg("g", { "clip-path": "url(#clip-curves)" }, frame.root);
  const heads = new Set(shown.filter((trial) => trial.h > 0 && trial.h < trial.e).map((trial) => trial.h));
  for (const head of heads) {
    if (heads.size > 3) break;
    const at = x(head + 0.5);
    svg("line", { x1: at, x2: at, y1: frame.top, y2: frame.bottom, class: "mark" }, frame.root);
    svg("text", { x: at + 4, y: frame.top + 10 }, frame.root, "finetune");
  }
  const order = ["PRUNED", "WAITING", "RUNNING", "COMPLETE", "FAIL"];
  const sorted = [...shown].sort((a, b) => order.indexOf(a.s) - order.indexOf(b.s));
  const faint = shown.length > 150 ? 0.35 : shown.length > 40 ? 0.6 : 0.9;
  for (const trial of sorted) {
    const one = fate(trial.s);
    const points = trial.c.map((value, index) => [x(trial.x ? trial.x[index] : index + 1), y(value)]);
    const group = svg("g", { class: "series", opacity: trial.s === "PRUNED" ? faint * 0.8 : faint }, area);
    const path = points.map(([a, b], index) => `${index ? "L" : "M"}${a.toFixed(1)},${b.toFixed(1)}`).join("");
    svg("path", { d: path, fill: "none", stroke: one.css, "stroke-width": one.width,
      "stroke-dasharray": one.dash }, group);
    const [endX, endY] = points[points.length - 1];
    mark(group, one.shape, endX, endY, 3, { fill: one.shape === 4 ? "none" : one.css, stroke: one.css,
      "stroke-width": 1.5 });
    svg("path", { d: path, class: "hit" }, group);
    tooltip(group, () => trialText(search, trial));
  }
  fateLegend(host, shown);
};

charts.best = (host, data) => {
  const { best } = data.search;
  const frame = canvasFor(host, 300, { left: 52, right: 12, top: 22, bottom: 38 });
  const x = linear(0, best.seconds || 1, frame.left, frame.right);
  const values = best.dots.map((dot) => dot[1]).sort((a, b) => a - b);
  const cut = (share) => values[Math.floor(share * (values.length - 1))];
  const steps = best.lines.flatMap((line) => line.steps.map((step) => step[1]));
  const [low, high] = data.search.percent ? extent([...values, ...steps]) : extent([cut(0), cut(0.9), ...steps]);
  const y = linear(low, high, frame.bottom, frame.top);
  axes(frame, { scale: x, ticks: timeTicks(best.seconds, frame.width > 500 ? 8 : 4), format: timeText,
    label: "time of the search" },
  { scale: y, ticks: y.ticks(5), format: metricTick(data.search), label: data.search.metric });
  for (const [at, seconds] of best.pauses) {
    const group = svg("g", { class: "series interrupted" }, frame.root);
    svg("line", { x1: x(at), x2: x(at), y1: frame.top, y2: frame.bottom, class: "mark" }, group);
    if (best.pauses.length < 4) svg("text", { x: x(at) + 4, y: frame.top - 6 }, group, "interrupted");
    svg("path", { d: `M${x(at)},${frame.top}V${frame.bottom}`, class: "hit" }, group);
    tooltip(group, `interrupted for ${timeText(seconds)}, not counted`);
  }
  for (const [when, value, number, state, rival] of best.dots) {
    if (value < low || value > high) continue;
    const one = fate(state);
    const dot = mark(frame.root, one.shape, x(when), y(value), 3, {
      fill: one.shape === 4 || rival ? "none" : one.css, stroke: one.css, opacity: 0.7 });
    tooltip(dot, `${rival ? "control " : ""}trial ${number}: ${one.name}\n${metricText(data.search, value)} after ${timeText(when)}`);
  }
  const styles = { search: ["var(--finished)", null], control: ["var(--text)", "5 4"] };
  for (const line of best.lines) {
    const [colour, dash] = styles[line.name];
    let path = "";
    line.steps.forEach(([when, value], index) => {
      path += index ? `H${x(when).toFixed(1)}V${y(value).toFixed(1)}` : `M${x(when).toFixed(1)},${y(value).toFixed(1)}`;
    });
    path += `H${x(line.end).toFixed(1)}`;
    const group = svg("g", { class: "series" }, frame.root);
    svg("path", { d: path, fill: "none", stroke: colour, "stroke-width": 2.4, "stroke-dasharray": dash }, group);
    svg("path", { d: path, class: "hit" }, group);
    const [, value, number] = line.steps[line.steps.length - 1];
    tooltip(group, `best of the ${line.name}: ${metricText(data.search, value)} (trial ${number})`);
  }
  if (best.lines.length > 1) {
    legend(host, best.lines.map((line) => [
      (root) => svg("line", { x1: 0, x2: 26, y1: 6, y2: 6, stroke: styles[line.name][0], "stroke-width": 2.4,
        "stroke-dasharray": styles[line.name][1] }, root),
      line.name === "search" ? "best of the search" : "best of the control's search",
    ]));
  }
};

charts.importance = (host, data) => {
  host.replaceChildren();
  for (const block of data.search.importances) {
    html("h4", {}, host, block.title);
    const inner = html("div", {}, host);
    const longest = Math.max(...block.shares.map(([name]) => shortName(name).length));
    const left = Math.min(inner.clientWidth * 0.45, longest * 7 + 12);
    const frame = canvasFor(inner, block.shares.length * 22 + 8, { left, right: 52, top: 4, bottom: 4 });
    const most = Math.max(0.02, ...block.shares.map(([, share]) => share));
    const x = linear(0, most, frame.left, frame.right);
    block.shares.forEach(([name, share], index) => {
      const y = frame.top + index * 22;
      const text = svg("text", { x: frame.left - 6, y: y + 15, "text-anchor": "end", class: "label" },
        frame.root, clipped(shortName(name), left - 8));
      tooltip(text, name);
      const bar = svg("rect", { x: frame.left, y: y + 3, width: Math.max(1, x(Math.max(0, share)) - frame.left),
        height: 16, rx: 2, fill: "var(--finished)", opacity: block.strength < 1 ? block.strength : null }, frame.root);
      const doubt = block.strength < 1 ? `\n(${block.verdict})` : "";
      tooltip(bar, `${name}: R² falls by ${share.toFixed(3)} when it is shuffled${doubt}`);
      svg("text", { x: x(Math.max(0, share)) + 6, y: y + 15 }, frame.root, share.toFixed(2).replace("-0.00", "0.00"));
    });
  }
};

// One scatter plot per parameter.
charts.slices = (host, data) => {
  const { search } = data;
  host.replaceChildren();
  const grid = html("div", { class: "grid-small" }, host);
  const shown = search.trials.filter((trial) => trial.v !== null);
  const values = shown.map((trial) => trial.v).sort((a, b) => a - b);
  const cut = (share) => values[Math.floor(share * (values.length - 1))];
  const [low, high] = search.percent ? extent(values) : extent([cut(0), cut(0.9)]);
  search.axes.forEach((axis, index) => {
    const cell = html("div", { class: "cell" }, grid);
    html("h4", {}, cell, axis.name);
    const inner = html("div", {}, cell);
    const frame = canvasFor(inner, 170, { left: 46, right: 10, top: 8, bottom: 24 });
    const x = axisScale(axis, frame.left + 8, frame.right - 8);
    const y = linear(low, high, frame.bottom, frame.top);
    axes(frame, { scale: x, ticks: x.ticks(4), format: (v) => paramText(axis, v) },
      { scale: y, ticks: y.ticks(4), format: metricTick(search) });
    for (const trial of shown) {
      if (trial.p[index] === null || trial.v < low || trial.v > high) continue;
      const one = fate(trial.s);
      const jitter = axis.choices ? ((trial.n * 7919) % 13) - 6 : 0;
      const dot = mark(frame.root, one.shape, x(trial.p[index]) + jitter, y(trial.v), 3.2, {
        fill: trial.s === "COMPLETE" ? one.css : "none", stroke: one.css, opacity: trial.s === "PRUNED" ? 0.55 : 0.85 });
      tooltip(dot, () => trialText(search, trial));
    }
  });
  fateLegend(host, shown, ["PRUNED", "FAIL", "RUNNING"]);
};

function axisScale(axis, from, to) {
  if (axis.choices) {
    const scale = linear(-0.3, axis.choices.length - 0.7, from, to);
    scale.ticks = () => axis.choices.map((_, index) => index);
    return scale;
  }
  return axis.log ? logarithmic(axis.low, axis.high, from, to) : linear(axis.low, axis.high, from, to);
}

// Values at every rung; those that ASHA stopped there are hollow.
charts.rungs = (host, data) => {
  const { search } = data;
  const frame = canvasFor(host, 300, { left: 52, right: 16, top: 22, bottom: 38 });
  const shown = search.trials.filter((trial) => trial.r.some((value) => value !== null));
  const values = shown.flatMap((trial) => trial.r).filter((value) => value !== null).sort((a, b) => a - b);
  const most = search.percent ? values[values.length - 1] : values[Math.floor(0.95 * (values.length - 1))];
  const [low, high] = extent([values[0], most]);
  const x = linear(-0.3, Math.max(0.3, search.rungs.length - 0.7), frame.left, frame.right);
  const y = linear(low, high, frame.bottom, frame.top);
  axes(frame, { scale: x, ticks: search.rungs.map((_, index) => index),
    format: (index) => search.rungs[index].label },
  { scale: y, ticks: y.ticks(5), format: metricTick(search), label: search.metric });
  for (const trial of shown) {
    const points = trial.r.map((value, index) => [index, value])
      .filter(([, value]) => value !== null && value >= low && value <= high);
    if (!points.length) continue;
    const one = fate(trial.s);
    const group = svg("g", { class: "series", opacity: trial.s === "PRUNED" ? 0.6 : 0.9 }, frame.root);
    const path = points.map(([k, v], index) => `${index ? "L" : "M"}${x(k).toFixed(1)},${y(v).toFixed(1)}`).join("");
    svg("path", { d: path, fill: "none", stroke: one.css, "stroke-width": one.width * 0.7,
      "stroke-dasharray": one.dash }, group);
    points.forEach(([k, v], index) => mark(group, index === points.length - 1 ? one.shape : 0, x(k), y(v), 3,
      { fill: index === points.length - 1 && trial.s !== "COMPLETE" ? "var(--card)" : one.css, stroke: one.css,
        "stroke-width": 1.4 }));
    svg("path", { d: path, class: "hit" }, group);
    tooltip(group, () => trialText(search, trial));
  }
  fateLegend(host, shown);
};

charts.timeline = (host, data) => {
  const { timeline } = data.search;
  const nodes = new Set(timeline.lanes.map((lane) => lane.node));
  const height = timeline.lanes.length > 40 ? 8 : timeline.lanes.length > 16 ? 12 : 22;
  const frame = canvasFor(host, timeline.lanes.length * height + 54,
    { left: nodes.size > 1 ? 108 : 56, right: 10, top: 6, bottom: 40 });
  const x = linear(0, timeline.seconds || 1, frame.left, frame.right);
  axes(frame, { scale: x, ticks: timeTicks(timeline.seconds, frame.width > 500 ? 8 : 4), format: timeText,
    label: "time with work" }, { scale: (v) => v, ticks: [] });
  const colours = { search: "var(--finished)", control: "var(--pruned)", retrain: "var(--running)" };
  let before = null;
  timeline.lanes.forEach((lane, index) => {
    const y = frame.top + index * height;
    const text = nodes.size > 1 ? (lane.node === before ? "" : lane.node) : (height > 10 ? `slot ${index + 1}` : "");
    before = lane.node;
    svg("text", { x: 0, y: y + height / 2 + 4 }, frame.root, clipped(text, frame.left - 4));
    svg("rect", { x: frame.left, y: y + 1, width: frame.right - frame.left, height: height - 2, class: "idle" }, frame.root);
    lane.bars.forEach(([begin, end, kind, name, worker], position) => {
      const bar = svg("rect", { x: x(begin).toFixed(2), y: y + 1, width: Math.max(0.6, x(end) - x(begin) - 0.6).toFixed(2),
        height: height - 2, fill: colours[kind] || "var(--muted)", opacity: position % 2 ? 0.72 : 1 }, frame.root);
      const where = [lane.node, worker && `process ${worker}`].filter(Boolean).join(", ");
      tooltip(bar, `${name}: ${timeText(end - begin)}${where ? `\n${where}` : ""}`);
    });
  });
  for (const [at, seconds] of timeline.pauses) {
    const line = svg("line", { x1: x(at), x2: x(at), y1: frame.top - 4, y2: frame.bottom, class: "mark" }, frame.root);
    tooltip(line, `nothing ran for ${timeText(seconds)}: cut out`);
  }
  const kinds = new Set(timeline.lanes.flatMap((lane) => lane.bars.map((bar) => bar[2])));
  const names = { search: "trial", control: "trial of the control", retrain: "retrain at the end" };
  legend(host, [...kinds].map((kind) => [
    (root) => svg("rect", { x: 2, y: 1, width: 22, height: 10, fill: colours[kind] || "var(--muted)" }, root),
    names[kind] || kind,
  ]).concat([[(root) => svg("rect", { x: 2, y: 1, width: 22, height: 10, class: "idle" }, root), "idle"]]));
};

charts.pareto = (host, data) => {
  const points = data.search.pareto;
  const frame = canvasFor(host, 300, { left: 52, right: 16, top: 22, bottom: 38 });
  const others = Object.keys(points[0]).filter((key) => !["trial", "accuracy", "latency_reliable"].includes(key));
  const cost = others.includes("latency_ms") ? "latency_ms" : others[0];
  const onFront = new Set(points.map((point) => point.trial));
  const beaten = cost !== "latency_ms" ? [] : data.search.trials.filter(
    (trial) => trial.s === "COMPLETE" && trial.l !== undefined && trial.v !== null && !onFront.has(trial.n));
  const [left, right] = extent([...points.map((point) => point[cost]), ...beaten.map((trial) => trial.l)], 0.1);
  const [low, high] = extent([...points.map((point) => point.accuracy), ...beaten.map((trial) => trial.v)], 0.1);
  const x = linear(Math.max(0, left), right, frame.left, frame.right);
  const y = linear(low, high, frame.bottom, frame.top);
  axes(frame, { scale: x, ticks: x.ticks(6), format: numberText, label: cost.replace("_", " ") },
    { scale: y, ticks: y.ticks(5), format: (v) => `${numberText(100 * v)} %`, label: data.search.metric });
  const why = new Map(data.search.trials.filter((trial) => trial.u).map((trial) => [trial.n, trial.u]));
  const doubt = (number) => `\n(unreliable: ${why.get(number) || "measured while the machine was busy"})`;
  const unsure = (atX, atY) => svg("text", { x: atX + 7, y: atY + 4, class: "unsure" }, frame.root, "?");
  for (const trial of beaten) {
    const dot = mark(frame.root, 0, x(trial.l), y(trial.v), 3.5, { fill: "var(--finished)", opacity: 0.3 });
    if (trial.u) unsure(x(trial.l), y(trial.v));
    tooltip(dot, () => `${trialText(data.search, trial)}\n${numberText(trial.l)} ${cost}${trial.u ? doubt(trial.n) : ""}`);
  }
  const sorted = [...points].sort((a, b) => a[cost] - b[cost]);
  const path = sorted.map((point, index) => `${index ? "L" : "M"}${x(point[cost])},${y(point.accuracy)}`).join("");
  svg("path", { d: path, fill: "none", stroke: "var(--finished)", "stroke-width": 1.5 }, frame.root);
  for (const point of sorted) {
    // Hollow: its place from left to right is not certain.
    const hollow = cost === "latency_ms" && point.latency_reliable === false;
    const dot = mark(frame.root, 0, x(point[cost]), y(point.accuracy), 5, {
      fill: hollow ? "var(--card)" : "var(--finished)", stroke: "var(--finished)", "stroke-width": 1.6 });
    const reason = point.latency_reliable === false ? doubt(point.trial) : "";
    if (reason) unsure(x(point[cost]), y(point.accuracy));
    tooltip(dot, `trial ${point.trial}: ${percentText(point.accuracy)} at ${numberText(point[cost])} ${cost}${reason}`);
  }
  if (cost === "latency_ms" && sorted.some((point) => point.latency_reliable === false)) {
    legend(host, [[
      (root) => mark(root, 0, 13, 6, 4.5, { fill: "var(--card)", stroke: "var(--finished)", "stroke-width": 1.6 }),
      "latency not reliable"]]);
  }
};
