// Charts of a pretraining: numbers by epoch, and the dimensions of the representation.

function byEpoch(host, series, format, label) {
  const frame = canvasFor(host, 320, { left: 56, right: 14, top: 22, bottom: 38 });
  const points = series.flatMap((each) => each.points);
  const last = Math.max(1, ...points.map(([epoch]) => epoch));
  const x = linear(0, last, frame.left, frame.right);
  const [low, high] = extent(points.map(([, value]) => value));
  const y = linear(low, high, frame.bottom, frame.top);
  axes(frame, { scale: x, ticks: x.ticks(frame.width > 500 ? 10 : 5).filter((v) => v === Math.round(v)), format: String, label: "epoch" },
    { scale: y, ticks: y.ticks(6), format, label });
  series.forEach((each, index) => {
    const look = lookOf(index);
    const path = each.points.map(([e, v], k) => `${k ? "L" : "M"}${x(e).toFixed(1)},${y(v).toFixed(1)}`).join("");
    const [end, value] = each.points[each.points.length - 1];
    const group = seriesOf(frame, index, path, `${each.name}: ${format(value)} after ${end} epochs`);
    mark(group, look.shape, x(end), y(value), 4.5, { fill: look.css, stroke: look.css });
  });
  runLegend(host, { names: series.map((each) => each.name) }, series.map((_, index) => index));
}

charts.judged = (host, data) => byEpoch(host, data.judged, (v) => percentText(v), "validation part");

charts.terms = (host, data) => byEpoch(host, data.terms, numberText, "training, mean of the epoch");

charts.dimensions = (host, data) => {
  const frame = canvasFor(host, 360, { left: 64, right: 14, top: 22, bottom: 38 });
  // A dimension that is never active has neither; it is drawn at the edge.
  const least = (place) => Math.min(...data.dimensions.map((row) => row[place]).filter((value) => value > 0));
  const floors = [0, 1].map((place) => {
    const found = least(place);
    return Number.isFinite(found) ? found : 1e-12;
  });
  const value = (row, place) => Math.max(row[place], floors[place]);
  const most = [0, 1].map((place) => Math.max(...data.dimensions.map((row) => value(row, place)), 2 * floors[place]));
  const x = logarithmic(floors[0], most[0], frame.left + 6, frame.right);
  const y = logarithmic(floors[1], most[1], frame.bottom - 6, frame.top);
  axes(frame, { scale: x, ticks: x.ticks(frame.width > 500 ? 6 : 3), format: numberText, label: "variance over the data" },
    { scale: y, ticks: y.ticks(5), format: numberText, label: "importance (Grad-CAM)" });
  data.dimensions.forEach((row, index) => {
    const look = row[2] ? { css: "var(--failed)", shape: 4 } : { css: "var(--finished)", shape: 0 };
    const dot = mark(frame.root, look.shape, x(value(row, 0)), y(value(row, 1)), 3,
      { fill: row[2] ? "none" : look.css, stroke: look.css, "stroke-width": 1.4, "fill-opacity": 0.6 });
    tooltip(dot, `dimension ${index}: variance ${numberText(row[0])}, importance ${numberText(row[1])}`);
  });
  const counts = [0, 1].map((kind) => data.dimensions.filter((row) => row[2] === kind).length);
  legend(host, [
    [(root) => mark(root, 0, 13, 6, 3.5, { fill: "var(--finished)", stroke: "var(--finished)" }), `kept (${counts[0]})`],
    [(root) => mark(root, 4, 13, 6, 3.5, { fill: "none", stroke: "var(--failed)", "stroke-width": 1.6 }), `does not discriminate (${counts[1]})`],
  ]);
};
