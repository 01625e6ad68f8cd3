// Parallel coordinates: one axis per parameter, one line per trial. Dragging along an axis keeps
// the trials that pass there; a click on the axis removes this filter.

charts.parallel = (host, data) => {
  const { search } = data;
  const shown = search.trials.filter((trial) => trial.v !== null);
  const values = shown.map((trial) => trial.v);
  const known = [...search.axes];
  const step = Math.max(64, Math.floor((host.clientWidth - 104) / Math.max(1, known.length)));
  host.replaceChildren();
  const scroller = html("div", { class: "scroll-x", id: "parallel-scroll", tabindex: "0" }, host);
  const inner = html("div", {}, scroller);
  inner.style.width = `${Math.max(host.clientWidth, step * known.length + 104)}px`;
  const frame = canvasFor(inner, 400, { left: 34, right: 70, top: 92, bottom: 24 });
  const place = linear(0, known.length, frame.left, frame.right);
  const ranks = [...values].sort((a, b) => a - b);
  const rank = (value) => ranks.indexOf(value) / Math.max(1, ranks.length - 1);
  const [low, high] = extent(values, 0.02);
  const columns = known.map((axis, index) => ({
    title: shortName(axis.name), full: axis.name, x: place(index), scale: axisScale(axis, frame.bottom, frame.top),
    of: (trial) => trial.p[index], text: (value) => paramText(axis, value), count: axis.choices ? 99 : 4,
  }));
  columns.push({
    title: search.metric.split("/").pop(), full: search.metric, x: place(known.length),
    scale: linear(low, high, frame.bottom, frame.top), of: (trial) => trial.v,
    text: (value) => metricText(search, value), count: 5,
  });
  const brushes = memory.brushes || (memory.brushes = {});
  const lines = svg("g", {}, frame.root);
  const drawn = shown.map((trial) => {
    const one = fate(trial.s);
    const points = columns.map((column) => {
      const value = column.of(trial);
      return [column.x, value === null ? frame.bottom + 14 : column.scale(value)];
    });
    const path = points.map(([a, b], index) => `${index ? "L" : "M"}${a.toFixed(1)},${b.toFixed(1)}`).join("");
    const share = search.maximize ? rank(trial.v) : 1 - rank(trial.v);
    // If there are many trials, the weak ones are faint.
    const clear = shown.length > 80 ? 0.12 + 0.88 * share ** 4 : 1;
    const group = svg("g", { class: "series" }, lines);
    svg("path", { d: path, fill: "none", stroke: ramp(share), "stroke-width": trial.s === "COMPLETE" ? 1.9 : 1,
      "stroke-dasharray": one.dash, opacity: (trial.s === "COMPLETE" ? 0.9 : 0.5) * clear }, group);
    svg("path", { d: path, class: "hit" }, group);
    tooltip(group, () => trialText(search, trial));
    return { trial, group, share };
  });
  drawn.sort((a, b) => a.share - b.share).forEach(({ group }) => lines.appendChild(group));
  const note = html("p", { class: "note", "aria-live": "polite" }, host);

  function sift() {
    const active = columns.filter((column) => brushes[column.full]);
    let kept = 0;
    for (const { trial, group } of drawn) {
      const passes = active.every((column) => {
        const value = column.of(trial);
        const [from, to] = brushes[column.full];
        const share = value === null ? -1 : (frame.bottom - column.scale(value)) / (frame.bottom - frame.top);
        return share >= from - 1e-9 && share <= to + 1e-9;
      });
      kept += passes;
      group.classList.toggle("out", !passes);
    }
    note.textContent = active.length
      ? `${kept} of ${drawn.length} trials pass. Click an axis to remove its range.`
      : "Drag along an axis to keep the trials that pass there.";
  }

  for (const column of columns) {
    const group = svg("g", { class: "axes" }, frame.root);
    svg("line", { x1: column.x, x2: column.x, y1: frame.top, y2: frame.bottom, class: "axis" }, group);
    const name = svg("text", { x: column.x - 2, y: frame.top - 10, class: "label",
      transform: `rotate(-32 ${column.x} ${frame.top - 10})` }, group, clipped(column.title, 128));
    tooltip(name, column.full);
    for (const tick of column.scale.ticks(column.count)) {
      svg("text", { x: column.x + 4, y: column.scale(tick) + 4, class: "halo" }, group,
        clipped(column.text(tick), step - 4));
    }
    const selection = svg("rect", { x: column.x - 7, width: 14, y: 0, height: 0, class: "brush" }, group);
    const show = () => {
      const range = brushes[column.full];
      const span = frame.bottom - frame.top;
      selection.setAttribute("y", range ? frame.bottom - range[1] * span : 0);
      selection.setAttribute("height", range ? (range[1] - range[0]) * span : 0);
    };
    const handle = svg("rect", { x: column.x - 12, width: 24, y: frame.top, height: frame.bottom - frame.top,
      class: "handle" }, group);
    let start = null;
    const share = (event) => {
      const at = event.clientY - frame.root.getBoundingClientRect().top;
      return Math.min(1, Math.max(0, (frame.bottom - at) / (frame.bottom - frame.top)));
    };
    handle.addEventListener("pointerdown", (event) => {
      start = share(event);
      handle.setPointerCapture(event.pointerId);
    });
    handle.addEventListener("pointermove", (event) => {
      if (start === null) return;
      const now = share(event);
      if (Math.abs(now - start) < 0.015) return;
      brushes[column.full] = [Math.min(start, now), Math.max(start, now)];
      show();
      sift();
    });
    handle.addEventListener("pointerup", (event) => {
      if (start !== null && Math.abs(share(event) - start) < 0.015) delete brushes[column.full];
      start = null;
      show();
      sift();
    });
    show();
  }
  sift();
  legend(host, [[(root) => {
    for (let at = 0; at < 26; at += 2) svg("rect", { x: at, y: 1, width: 2.2, height: 10, fill: ramp(at / 25) }, root);
  }, "worst to best; thin lines: trials that did not finish; below the axis: not active"]]);
};

// Cividis, which looks the same with and without red-green vision (Nuñez, Anderton, Renslow 2018).
const RAMP = [[0, 34, 78], [42, 63, 109], [87, 93, 109], [124, 123, 120], [165, 156, 116], [211, 193, 100],
  [254, 232, 56]];

function ramp(share) {
  // The best stand out: bright on a dark page, dark on a light one.
  const inner = isDark() ? 0.25 + 0.75 * share : 0.9 * (1 - share);
  const place = Math.min(0.9999, Math.max(0, inner)) * (RAMP.length - 1);
  const index = Math.floor(place);
  const part = place - index;
  const mix = RAMP[index].map((value, channel) => Math.round(value + part * (RAMP[index + 1][channel] - value)));
  return `rgb(${mix.join(",")})`;
}
