// Losses of training and validation in one plot, the validation accuracy below.

charts.training = (host, data) => {
  host.replaceChildren();
  const { training } = data;
  const lines = [
    { name: "training loss", values: training.train, css: "var(--finished)", dash: null },
    { name: "its cross-entropy alone", values: training.cross_entropy, css: "var(--finished)", dash: "2 4" },
    { name: "validation loss", values: training.validation, css: "var(--failed)", dash: "7 4" },
  ].filter((line) => line.values.some((value) => value !== null));
  trainingPanel(host, training, lines, { height: 300, label: "loss", format: numberText, share: false });
  legend(host, lines.map((line) => [
    (root) => svg("line", { x1: 0, x2: 26, y1: 6, y2: 6, stroke: line.css, "stroke-width": 2.2,
      "stroke-dasharray": line.dash }, root),
    line.name,
  ]));
  const right = [{ name: "validation accuracy", values: training.accuracy, css: "var(--failed)", dash: "7 4" }];
  if (right[0].values.some((value) => value !== null)) {
    trainingPanel(host, training, right,
      { height: 190, label: "validation accuracy", format: (v) => `${numberText(100 * v)} %`, share: true });
  }
};

function trainingPanel(host, training, lines, look) {
  const inner = html("div", {}, host);
  const frame = canvasFor(inner, look.height, { left: 52, right: 12, top: 22, bottom: 38 });
  const last = training.epochs[training.epochs.length - 1];
  const x = linear(last > 1 ? 1 : 0, Math.max(last, 2), frame.left, frame.right);
  const [low, high] = extent(lines.flatMap((line) => line.values));
  const y = linear(look.share ? Math.max(0, low) : low, look.share ? Math.min(1, high) : high, frame.bottom, frame.top);
  axes(frame,
    { scale: x, ticks: x.ticks(frame.width > 500 ? 10 : 5).filter((v) => v === Math.round(v)), format: String, label: "epoch" },
    { scale: y, ticks: y.ticks(look.share ? 4 : 6), format: look.format, label: look.label });
  for (const [first, name] of training.stages.slice(1)) {
    const at = x(first - 0.5);
    svg("line", { x1: at, x2: at, y1: frame.top, y2: frame.bottom, class: "mark" }, frame.root);
    svg("text", { x: at + 4, y: frame.top + 10 }, frame.root, name);
  }
  for (const line of lines) {
    const points = line.values.map((value, index) => [training.epochs[index], value]).filter(([, value]) => value !== null);
    const path = points.map(([epoch, value], index) => `${index ? "L" : "M"}${x(epoch).toFixed(1)},${y(value).toFixed(1)}`).join("");
    const group = svg("g", { class: "series" }, frame.root);
    svg("path", { d: path, fill: "none", stroke: line.css, "stroke-width": 2, "stroke-dasharray": line.dash }, group);
    for (const [epoch, value] of points) {
      const dot = mark(group, 0, x(epoch), y(value), points.length > 60 ? 1.5 : 2.5, { fill: line.css });
      tooltip(dot, `epoch ${epoch}: ${line.name} ${look.format(value)}`);
    }
  }
}
