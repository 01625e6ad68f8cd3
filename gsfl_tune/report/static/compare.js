// Charts of several runs side by side.

const DASHES = [null, "6 4", "2 3"];

// Colour, dash and shape of a run: not every reader can distinguish hues.
function lookOf(index) {
  return { css: `var(--run-${index % 6})`, dash: DASHES[Math.floor(index / 6) % DASHES.length], shape: index };
}

function valueText(data, value) {
  return data.percent ? percentText(value) : numberText(value);
}

function valueTick(data) {
  return (value) => (data.percent ? `${numberText(100 * value)} %` : numberText(value));
}

function runLegend(host, data, indices) {
  legend(host, indices.map((index) => [
    (root) => {
      const look = lookOf(index);
      svg("line", { x1: 0, x2: 26, y1: 6, y2: 6, stroke: look.css, "stroke-width": 2.4, "stroke-dasharray": look.dash }, root);
      mark(root, look.shape, 13, 6, 3.5, { fill: look.css, stroke: look.css, "stroke-width": 1.6 });
    },
    data.names[index],
  ]));
}

function seriesOf(frame, index, path, text) {
  const look = lookOf(index);
  const group = svg("g", { class: "series" }, frame.root);
  svg("path", { d: path, fill: "none", stroke: look.css, "stroke-width": 2.2, "stroke-dasharray": look.dash }, group);
  svg("path", { d: path, class: "hit" }, group);
  tooltip(group, text);
  return group;
}

charts.compared = (host, data) => {
  const shown = data.names.map((_, index) => index).filter((index) => data.curves[index].points.length);
  const frame = canvasFor(host, 340, { left: 52, right: 14, top: 22, bottom: 38 });
  const points = shown.flatMap((index) => data.curves[index].points);
  const last = Math.max(2, ...points.map(([epoch]) => epoch));
  const x = linear(1, last, frame.left, frame.right);
  // A curve that begins very badly must not flatten all others.
  const values = points.map(([, value]) => value).sort((a, b) => a - b);
  const most = data.percent ? values[values.length - 1] : values[Math.floor(0.97 * (values.length - 1))];
  const [low, high] = extent([values[0], most]);
  const y = linear(data.percent ? Math.max(0, low) : low, data.percent ? Math.min(1, high) : high, frame.bottom, frame.top);
  axes(frame, { scale: x, ticks: x.ticks(frame.width > 500 ? 10 : 5).filter((v) => v === Math.round(v)), format: String, label: "epoch" },
    { scale: y, ticks: y.ticks(6), format: valueTick(data), label: data.metric });
  const clip = svg("clipPath", { id: "clip-compared" }, frame.root);
  svg("rect", { x: frame.left, y: frame.top - 4, width: frame.right - frame.left + 8, height: frame.bottom - frame.top + 8 }, clip);
  const area = { root: svg("g", { "clip-path": "url(#clip-compared)" }, frame.root) };
  for (const index of shown) {
    const { points: own, head } = data.curves[index];
    const look = lookOf(index);
    const path = own.map(([e, v], k) => `${k ? "L" : "M"}${x(e).toFixed(1)},${y(v).toFixed(1)}`).join("");
    const [end, value] = own[own.length - 1];
    const group = seriesOf(area, index, path,
      `${data.names[index]}: ${valueText(data, value)} after ${end} epochs`);
    mark(group, look.shape, x(end), y(value), 4.5, { fill: look.css, stroke: look.css });
    const change = head && own.find(([epoch]) => epoch === head);
    if (change && end > head) {
      svg("line", { x1: x(head), x2: x(head), y1: y(change[1]) - 9, y2: y(change[1]) + 9, stroke: look.css, "stroke-width": 2 }, group);
    }
  }
  runLegend(host, data, shown);
};

charts.progress = (host, data) => {
  const shown = data.names.map((_, index) => index).filter((index) => data.progress[index].steps.length);
  const frame = canvasFor(host, 320, { left: 52, right: 14, top: 22, bottom: 38 });
  const longest = Math.max(1, ...shown.map((index) => data.progress[index].end));
  const x = linear(0, longest, frame.left, frame.right);
  const steps = shown.flatMap((index) => data.progress[index].steps);
  const [low, high] = extent(steps.map(([, value]) => value), 0.1);
  const y = linear(low, high, frame.bottom, frame.top);
  axes(frame, { scale: x, ticks: timeTicks(longest, frame.width > 500 ? 8 : 4), format: timeText, label: "time of the search" },
    { scale: y, ticks: y.ticks(5), format: valueTick(data), label: data.metric });
  for (const index of shown) {
    const { steps: own, end } = data.progress[index];
    const look = lookOf(index);
    let path = "";
    own.forEach(([when, value], k) => {
      path += k ? `H${x(when).toFixed(1)}V${y(value).toFixed(1)}` : `M${x(when).toFixed(1)},${y(value).toFixed(1)}`;
    });
    path += `H${x(end).toFixed(1)}`;
    const [, value, number] = own[own.length - 1];
    const group = seriesOf(frame, index, path, `${data.names[index]}: ${valueText(data, value)} (trial ${number})`);
    own.forEach(([when, each]) => mark(group, look.shape, x(when), y(each), 3.5, { fill: look.css, stroke: look.css }));
  }
  runLegend(host, data, shown);
};

charts.differences = (host, data) => {
  host.replaceChildren();
  const rows = data.differences;
  const longest = Math.max(...rows.map((row) => row.run.length));
  const beside = Math.min(host.clientWidth * 0.34, longest * 7 + 14);
  const frame = canvasFor(host, 44 * rows.length + 52, { left: beside, right: 16, top: 10, bottom: 40 });
  const [low, high] = extent([0, ...rows.flatMap((row) => [row.low, row.high])], 0.1);
  const x = linear(low, high, frame.left + 6, frame.right);
  axes(frame, { scale: x, ticks: x.ticks(frame.width > 500 ? 7 : 4), format: (v) => `${v > 0 ? "+" : ""}${numberText(100 * v)}`,
    label: `points of test accuracy, minus ${rows[0].against}` }, { scale: (v) => v, ticks: [] });
  svg("line", { x1: x(0), x2: x(0), y1: frame.top - 4, y2: frame.bottom, class: "axis" }, frame.root);
  rows.forEach((row, index) => {
    const look = lookOf(data.names.indexOf(row.run));
    const at = frame.top + 44 * index + 22;
    const most = Math.max(3, Math.floor((beside - 8) / 6.8));
    const name = row.run.length <= most ? row.run : `…${row.run.slice(row.run.length - most + 1)}`;
    svg("text", { x: 0, y: at + 4, class: "label" }, frame.root, name);
    const group = svg("g", { class: "series" }, frame.root);
    svg("line", { x1: x(row.low), x2: x(row.high), y1: at, y2: at, stroke: look.css, "stroke-width": 3 }, group);
    for (const end of [row.low, row.high]) {
      svg("line", { x1: x(end), x2: x(end), y1: at - 6, y2: at + 6, stroke: look.css, "stroke-width": 2 }, group);
    }
    mark(group, look.shape, x(row.mean), at, 5.5, { fill: look.css, stroke: look.css, "stroke-width": 2 });
    svg("path", { d: `M${x(row.low)},${at}H${x(row.high)}`, class: "hit" }, group);
    const points = row.told;
    tooltip(group, `${row.run} minus ${row.against}: ${points[0]} points (${points[1]} to ${points[2]}; ${row.method})`);
  });
};
