// Charts of the winner: classes, confusions, calibration, maps, decomposition.

// Nothing for one run, or for runs that are identical; their mean may differ in its last bits.
function deviation(std) {
  if (!(std > 1e-9)) return "";
  return std >= 0.0005 ? ` ± ${(100 * std).toFixed(1)}` : " ± < 0.1";
}

const LEAST_BAR = 13; // pixels: as wide as a line of a name is high
const MOST_BARS = 1000; // with a name each

charts.classes = (host, data) => {
  const rows = data.accuracy; // the worst first
  host.replaceChildren();
  // Names stand below the bars. Where these would be narrower than a line, the chart scrolls; paper cannot.
  const fits = (host.clientWidth - 64) / rows.length >= LEAST_BAR;
  const printing = document.documentElement.classList.contains("printing");
  const named = fits || (rows.length <= MOST_BARS && !printing);
  const room = named ? Math.min(110, 14 + 6.8 * Math.max(...rows.map(([name]) => name.length))) : 0;
  const box = html("div", fits || !named ? {} : { class: "scroll-x", id: "classes-bars", tabindex: "0", role: "group",
    "aria-label": "Accuracy by class" }, host);
  const inner = html("div", {}, box);
  if (named && !fits) inner.style.width = `${64 + LEAST_BAR * rows.length}px`;
  const frame = canvasFor(inner, 240 + room, { left: 52, right: 12, top: 22, bottom: 34 + room });
  const x = linear(0, rows.length, frame.left, frame.right);
  const y = linear(0, 1, frame.bottom, frame.top);
  axes(frame, { scale: x, ticks: [] },
    { scale: y, ticks: [0, 0.25, 0.5, 0.75, 1], format: (v) => `${100 * v} %`, label: "test accuracy" });
  // At the left, where a box that scrolls begins.
  svg("text", { x: frame.left, y: frame.height - 4, class: "name" }, frame.root, `${rows.length} classes, the worst first`);
  const width = (frame.right - frame.left) / rows.length;
  rows.forEach(([name, accuracy, worst, group], index) => {
    const bar = svg("rect", { x: x(index) + width * 0.08, width: Math.max(0.7, width * 0.84), y: y(accuracy),
      height: Math.max(1.5, frame.bottom - y(accuracy)), fill: worst ? "var(--failed)" : "var(--finished)" }, frame.root);
    if (named) {
      const at = `rotate(-90 ${x(index + 0.5)} ${frame.bottom + 8})`;
      svg("text", { x: x(index + 0.5), y: frame.bottom + 12, "text-anchor": "end", class: "under", transform: at }, frame.root,
        clipped(name, room - 8));
    }
    tooltip(bar, `${name}: ${percentText(accuracy)}${group === null ? "" : `, group ${group}`}${worst ? "\nin the worst tenth" : ""}`);
  });
  legend(host, [
    [(root) => svg("rect", { x: 2, y: 1, width: 22, height: 10, fill: "var(--failed)" }, root), "worst tenth"],
    [(root) => svg("rect", { x: 2, y: 1, width: 22, height: 10, fill: "var(--finished)" }, root), "others"],
  ]);
};

charts.calibration = (host, data) => {
  const { after } = data.calibration;
  const bins = (after || data.calibration).bins.filter((bin) => bin.count > 0);
  const total = bins.reduce((sum, bin) => sum + bin.count, 0);
  const frame = canvasFor(host, 340, { left: 52, right: 14, top: 22, bottom: 38 });
  const side = Math.min(frame.right - frame.left, 460);
  const x = linear(0, 1, frame.left, frame.left + side);
  const y = linear(0, 1, frame.bottom, frame.top);
  const tenth = (v) => `${numberText(100 * v)} %`;
  axes({ ...frame, right: frame.left + side }, { scale: x, ticks: [0, 0.25, 0.5, 0.75, 1], format: tenth, label: "confidence" },
    { scale: y, ticks: [0, 0.25, 0.5, 0.75, 1], format: tenth, label: "accuracy" });
  svg("line", { x1: x(0), y1: y(0), x2: x(1), y2: y(1), class: "mark" }, frame.root);
  for (const bin of bins) {
    const height = 46 * (bin.count / Math.max(...bins.map((each) => each.count)));
    svg("rect", { x: x(bin.low) + 1, width: Math.max(1, x(bin.high) - x(bin.low) - 2), y: frame.bottom - height,
      height, fill: "var(--muted)", opacity: 0.3 }, frame.root);
  }
  const line = (each) => each.map((bin, index) => `${index ? "L" : "M"}${x(bin.confidence)},${y(bin.accuracy)}`).join("");
  if (after) {
    const old = data.calibration.bins.filter((bin) => bin.count > 0);
    svg("path", { d: line(old), fill: "none", stroke: "var(--pruned)", "stroke-width": 1.6, "stroke-dasharray": "5 3" }, frame.root);
    for (const bin of old) {
      const dot = mark(frame.root, 0, x(bin.confidence), y(bin.accuracy), 3, { fill: "var(--pruned)" });
      tooltip(dot, `before: confidence ${percentText(bin.confidence)}, right ${percentText(bin.accuracy)}\n${bin.count} predictions`);
    }
    legend(host, [
      [(root) => svg("line", { x1: 2, x2: 24, y1: 6, y2: 6, stroke: "var(--pruned)", "stroke-width": 2, "stroke-dasharray": "5 3" }, root), "as the network gives it"],
      [(root) => svg("line", { x1: 2, x2: 24, y1: 6, y2: 6, stroke: "var(--finished)", "stroke-width": 2 }, root), "with the temperature"],
    ]);
  }
  svg("path", { d: line(bins), fill: "none", stroke: "var(--finished)", "stroke-width": 1.6 }, frame.root);
  for (const bin of bins) {
    svg("line", { x1: x(bin.confidence), x2: x(bin.confidence), y1: y(bin.confidence), y2: y(bin.accuracy),
      stroke: "var(--failed)", "stroke-width": 2, opacity: 0.7 }, frame.root);
    const dot = mark(frame.root, 0, x(bin.confidence), y(bin.accuracy), 3 + 5 * Math.sqrt(bin.count / total),
      { fill: "var(--finished)" });
    tooltip(dot, `confidence ${percentText(bin.confidence)}, right ${percentText(bin.accuracy)}\n${bin.count} predictions`);
  }
};

charts.risk = (host, data) => {
  const { risk_coverage: points, auto } = data.calibration;
  const most = Math.max(0.02, ...points.map((point) => point[1])) * 1.1;
  const frame = canvasFor(host, 280, { left: 52, right: 14, top: 22, bottom: 38 });
  const right = Math.min(frame.right, frame.left + 560);
  const x = linear(0, 1, frame.left, right);
  const y = linear(0, most, frame.bottom, frame.top);
  const percent = (v) => `${numberText(100 * v)} %`;
  axes({ ...frame, right }, { scale: x, ticks: [0, 0.25, 0.5, 0.75, 1], format: percent, label: "answered" },
    { scale: y, ticks: niceTicks(0, most, 4), format: percent, label: "wrong among the answers" });
  const path = points.map(([coverage, risk], index) => `${index ? "L" : "M"}${x(coverage)},${y(risk)}`).join("");
  svg("path", { d: path, fill: "none", stroke: "var(--finished)", "stroke-width": 1.8 }, frame.root);
  for (const [coverage, risk, confidence] of points) {
    const spot = svg("circle", { cx: x(coverage), cy: y(risk), r: 7, fill: "transparent" }, frame.root);
    tooltip(spot, `${percentText(coverage)} answered (confidence from ${percentText(confidence)})\n${percentText(risk)} of these wrong`);
  }
  if (!auto || auto.risk === null) return;
  const dot = mark(frame.root, 0, x(auto.coverage), y(Math.min(auto.risk, most)), 5, { fill: "var(--failed)" });
  tooltip(dot, `--threshold auto, ${percentText(auto.threshold)}: ${percentText(auto.coverage)} answered\n${percentText(auto.risk)} of these wrong`);
  legend(host, [[(root) => mark(root, 0, 13, 6, 5, { fill: "var(--failed)" }), "--threshold auto"]]);
};

// Okabe and Ito's colours; groups beyond them differ by shape too.
const HUES = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9", "#8f8f00", "#7a5195"];

charts.map = (host, data) => {
  const { map } = data;
  host.replaceChildren();
  const setting = memory.map || (memory.map = { colour: "group", only: "" });
  const bar = html("div", { class: "controls" }, host);
  const grouped = data.groups.some((group) => group !== null);
  if (!grouped && setting.colour === "group") setting.colour = "class";
  const choose = (label, key, options) => {
    const box = html("label", {}, bar, `${label} `);
    const select = html("select", { id: `map-${key}` }, box);
    for (const [value, text] of options) {
      const option = html("option", { value }, select, text);
      option.selected = setting[key] === value;
    }
    select.addEventListener("change", () => {
      setting[key] = select.value;
      charts.map(host, data);
      host.querySelector(`#map-${key}`).focus();
    });
  };
  choose("Colour by", "colour", [...(grouped ? [["group", "group"]] : []), ["class", "class"], ["right", "right or wrong"]]);
  choose("Only", "only", [["", "all classes"], ...data.classes.map((name, index) => [String(index), name])]);
  const grid = html("div", { class: "grid-wide" }, host);
  // All cells first: they share the width.
  const cells = ["shared", "discriminative"].filter((part) => map[part]).map((part) => {
    const cell = html("div", { class: "cell" }, grid);
    html("h4", {}, cell, part === "shared" ? "shared part s" : "discriminative part d");
    return [part, html("div", {}, cell)];
  });
  for (const [part, inner] of cells) {
    const side = Math.min(inner.clientWidth, 520);
    const heights = map[part].filter((_, index) => index % 2);
    const [low, high] = [Math.min(...heights), Math.max(...heights)];
    // The height follows from the points: both axes have one scale.
    const height = 24 + (side - 24) * Math.max(0.3, (high - low) / 1000);
    const frame = canvasFor(inner, height, { left: 6, right: Math.max(6, inner.clientWidth - side + 6), top: 6, bottom: 6 });
    const x = linear(0, 1000, frame.left + 6, frame.right - 6);
    const middle = (low + high) / 2;
    const half = (500 * (frame.bottom - frame.top - 12)) / (side - 24);
    const y = linear(middle - half, middle + half, frame.bottom - 6, frame.top + 6);
    svg("rect", { x: frame.left, y: frame.top, width: frame.right - frame.left, height: frame.bottom - frame.top,
      class: "idle" }, frame.root);
    map.labels.forEach((label, index) => {
      const wrong = map.predicted[index] !== label;
      const chosen = setting.only === "" || Number(setting.only) === label;
      const number = setting.colour === "group" ? data.groups[label] : setting.colour === "class" ? label : wrong ? 4 : 0;
      const shape = setting.colour === "right" ? (wrong ? 4 : 0) : Math.floor(number / HUES.length);
      const colour = setting.colour === "right" ? (wrong ? "var(--failed)" : "var(--finished)") : HUES[number % HUES.length];
      const dot = mark(frame.root, shape, x(map[part][2 * index]), y(map[part][2 * index + 1]), chosen ? 3.1 : 2, {
        fill: shape % SHAPES.length === 4 ? "none" : colour, stroke: colour, "stroke-width": 1.1, opacity: chosen ? 0.8 : 0.1 });
      if (chosen) {
        tooltip(dot, () => {
          const group = data.groups[label] === null ? "" : ` (group ${data.groups[label]})`;
          return `${data.classes[label]}${group}${wrong ? `\npredicted as ${data.classes[map.predicted[index]]}` : "\nright"}`;
        });
      }
    });
  }
  const present = [...new Set(data.groups)].filter((group) => group !== null).sort((a, b) => a - b);
  if (setting.colour === "group") {
    legend(host, present.map((group) => [
      (root) => mark(root, Math.floor(group / HUES.length), 13, 6, 4, { fill: HUES[group % HUES.length],
        stroke: HUES[group % HUES.length] }),
      `group ${group}`,
    ]));
  } else if (setting.colour === "right") {
    legend(host, [
      [(root) => mark(root, 0, 13, 6, 4, { fill: "var(--finished)" }), "right"],
      [(root) => mark(root, 4, 13, 6, 4, { stroke: "var(--failed)", "stroke-width": 1.6 }), "wrong"],
    ]);
  }
};

// Pairs of bars with a line for chance.
function barPairs(host, rows, chanceOf, series, strength = null) {
  if (!rows.length) {
    host.textContent = "There were no images for this measurement.";
    return;
  }
  const longest = Math.max(...rows.map((row) => row.name.length));
  const left = Math.min(host.clientWidth * 0.4, longest * 7 + 14);
  const frame = canvasFor(host, rows.length * (22 * series.length + 16) + 40, { left, right: 56, top: 6, bottom: 36 });
  const x = linear(0, 1, frame.left, frame.right);
  axes(frame, { scale: x, ticks: [0, 0.25, 0.5, 0.75, 1], format: (v) => `${100 * v} %`, label: "share" },
    { scale: (v) => v, ticks: [] });
  const numbers = [];
  rows.forEach((row, index) => {
    const top = frame.top + index * (22 * series.length + 16) + 6;
    svg("text", { x: frame.left - 8, y: top + 11 * series.length + 4, "text-anchor": "end", class: "label" }, frame.root,
      clipped(row.name, left - 8));
    series.forEach(([key, name, colour], position) => {
      const found = row[key];
      if (!found) return;
      const y = top + position * 22;
      const bar = svg("rect", { x: frame.left, y, width: Math.max(1, x(found.mean) - frame.left), height: 18, rx: 2,
        fill: colour, opacity: strength }, frame.root);
      tooltip(bar, `${row.name}, ${name}: ${percentText(found.mean)}${deviation(found.std)}`);
      if (found.std) {
        svg("line", { x1: x(Math.max(0, found.mean - found.std)), x2: x(Math.min(1, found.mean + found.std)), y1: y + 9, y2: y + 9,
          stroke: "var(--text)", "stroke-width": 1.4 }, frame.root);
      }
      numbers.push([x(Math.min(1, found.mean + (found.std || 0))) + 6, y + 13, percentText(found.mean, 0)]);
    });
    const chance = chanceOf(row);
    if (chance !== null && chance !== undefined) {
      const line = svg("line", { x1: x(chance), x2: x(chance), y1: top - 4, y2: top + 22 * series.length, stroke: "var(--failed)",
        "stroke-width": 2, "stroke-dasharray": "4 3" }, frame.root);
      tooltip(line, `chance: ${percentText(chance)}`);
    }
  });
  // Labels are drawn last, with a halo: the chance line may cross them.
  for (const [left, y, text] of numbers) svg("text", { x: left, y, class: "halo" }, frame.root, text);
  const marks = series.filter(([key]) => rows.some((row) => row[key])).map(([, name, colour]) => [
    (root) => svg("rect", { x: 2, y: 1, width: 22, height: 10, fill: colour }, root), name]);
  legend(host, [...marks, [(root) => svg("line", { x1: 2, x2: 24, y1: 6, y2: 6, stroke: "var(--failed)", "stroke-width": 2,
    "stroke-dasharray": "4 3" }, root), "chance"]]);
}

charts.probes = (host, data) => {
  const names = { f: "feature f", s: "shared s", d: "discriminative d" };
  const rows = data.probes.parts.map((part) => ({ ...part, name: names[part.part] || part.part }));
  barPairs(host, rows, () => data.probes.chance,
    [["groups", "the groups", "var(--finished)"], ["random_groups", "random groups of the same sizes", "var(--pruned)"]]);
};

charts.swap = (host, data) => {
  const { swap } = data;
  const share = (value) => (value === null || value === undefined ? null : { mean: value });
  const rows = [
    { name: "the group", own: share(swap.group_follows_shared), other: share(swap.group_follows_discriminative),
      chance: swap.chance_group },
    { name: "the class", own: share(swap.class_follows_discriminative), other: share(swap.class_follows_shared),
      chance: swap.chance_class },
  ].filter((row) => row.own);
  const series = [["own", "follows the part that should carry it (group: s, class: d)", "var(--finished)"]];
  if (rows.some((row) => row.other)) series.push(["other", "follows the other part", "var(--pruned)"]);
  // A judge that is wrong on most real images judges nothing.
  barPairs(host, rows, (row) => row.chance, series, swap.judge_accuracy < 0.5 ? 0.3 : null);
};
