// The confusion matrix: shades, numbers and names, one class in words; which wrong images are shown.

const LEAST_CELL = 26; // pixels: a number and a name fit
const SMALL_CELL = 18; // of a large matrix with names; of 200 classes it is as large as a phone can hold
const MOST_NAMED = 40; // more classes are an overview first, and on demand with names in a box that scrolls
const MOST_PIXELS = 4096; // of a side of a canvas

function matrixChart(host, matrix) {
  host.replaceChildren();
  const count = matrix.labels.length;
  const totals = new Array(count).fill(0);
  for (const [row, , number] of matrix.cells) totals[row] += number;
  const counts = new Map(matrix.cells.map(([row, column, number]) => [row * count + column, number]));
  let choose = null;
  const drawn = { matrix, totals, counts, choose: (row) => choose(row) };
  matrixCanvas(host, drawn, count <= MOST_NAMED);
  if (count > MOST_NAMED && !document.documentElement.classList.contains("printing")) largeMatrix(host, drawn);
  choose = classInWords(host, matrix, totals, counts);
}

// All names and numbers, too large for a page: drawn when it is opened, in a box that scrolls.
function largeMatrix(host, drawn) {
  const key = `large ${host.dataset.chart}`;
  const fold = html("details", { class: "matrix-large" }, host);
  html("summary", {}, fold, "With all names and numbers");
  const inner = html("div", {}, fold);
  fold.addEventListener("toggle", () => {
    memory[key] = fold.open;
    if (fold.open && !inner.firstChild) matrixCanvas(inner, drawn, true);
  });
  fold.open = Boolean(memory[key]);
}

function matrixCanvas(host, { matrix, totals, counts, choose }, named) {
  const count = matrix.labels.length;
  const width = Math.min(host.clientWidth, 620);
  const small = count > MOST_NAMED;
  const longest = Math.max(...matrix.labels.map((label) => label.length));
  const margin = named ? Math.min(170, 0.4 * width, 12 + 6.8 * longest) : 16;
  const side = named ? Math.max(width, margin + count * (small ? SMALL_CELL : LEAST_CELL)) : width;
  const cell = (side - margin) / count;
  // A large one scrolls both ways inside the page.
  const scroll = html("div", { class: small && named ? "scroll-y" : "scroll-x", tabindex: "0", role: "group",
    "aria-label": "Confusion matrix" }, host);
  const box = html("div", { class: "matrix" }, scroll);
  box.style.width = `${side}px`;
  box.style.height = `${side}px`;
  const canvas = html("canvas", { "aria-hidden": "true" }, box);
  const density = Math.min(3, window.devicePixelRatio || 1, MOST_PIXELS / side);
  canvas.width = side * density;
  canvas.height = side * density;
  canvas.style.width = `${side}px`;
  canvas.style.height = `${side}px`;
  const paint = canvas.getContext("2d");
  paint.scale(density, density);
  const css = getComputedStyle(document.documentElement);
  const colour = (name) => css.getPropertyValue(name).trim();
  paint.fillStyle = colour("--empty");
  paint.fillRect(margin, margin, side - margin, side - margin);
  for (const [row, column, number] of matrix.cells) {
    // The square root keeps single confusions visible beside a full diagonal.
    paint.globalAlpha = 0.12 + 0.88 * Math.sqrt(number / totals[row]);
    paint.fillStyle = colour(row === column ? "--finished" : "--failed");
    paint.fillRect(margin + column * cell, margin + row * cell, Math.max(1, cell - (cell > 6 ? 1 : 0)),
      Math.max(1, cell - (cell > 6 ? 1 : 0)));
  }
  paint.globalAlpha = 1;
  paint.strokeStyle = colour(count > 60 ? "--muted" : "--text");
  paint.lineWidth = count > 60 ? 0.5 : 1;
  for (const edge of matrix.edges) {
    const line = Math.round(margin + edge * cell) + 0.5;
    paint.beginPath();
    paint.moveTo(margin, line);
    paint.lineTo(side, line);
    paint.moveTo(line, margin);
    paint.lineTo(line, side);
    paint.stroke();
  }
  if (named) writeMatrix(paint, matrix, margin, cell, colour);
  else {
    paint.fillStyle = colour("--text");
    paint.font = "12px system-ui, sans-serif";
    paint.fillText("predicted →", margin, 11);
    paint.save();
    paint.translate(11, margin + 74);
    paint.rotate(-Math.PI / 2);
    paint.fillText("← true", 0, 0);
    paint.restore();
  }
  const under = (event) => {
    const bounds = canvas.getBoundingClientRect();
    const column = Math.floor((event.clientX - bounds.left - margin) / cell);
    const row = Math.floor((event.clientY - bounds.top - margin) / cell);
    return [row < count ? row : -1, column < count ? column : -1];
  };
  canvas.addEventListener("pointermove", (event) => {
    const [row, column] = under(event);
    if (row < 0 || column < 0) return hideTip();
    const number = counts.get(row * count + column) || 0;
    const share = totals[row] ? ` (${percentText(number / totals[row], 0)})` : "";
    return showTip(event, row === column
      ? `${matrix.labels[row]}: right ${number} of ${totals[row]}${share}`
      : `${matrix.labels[row]} predicted as ${matrix.labels[column]}: ${number} of ${totals[row]}${share}`);
  });
  canvas.addEventListener("pointerleave", hideTip);
  canvas.addEventListener("click", (event) => {
    const [row] = under(event);
    if (row >= 0) choose(row);
  });
}

function writeMatrix(paint, matrix, margin, cell, colour) {
  paint.fillStyle = colour("--text");
  paint.font = "12px system-ui, sans-serif";
  matrix.labels.forEach((label, index) => {
    const middle = margin + (index + 0.5) * cell + 4;
    paint.textAlign = "right";
    paint.fillText(clipped(label, margin - 8), margin - 5, middle);
    paint.save();
    paint.translate(middle, margin - 5);
    paint.rotate(-Math.PI / 2);
    paint.textAlign = "left";
    paint.fillText(clipped(label, margin - 8), 0, 0);
    paint.restore();
  });
  paint.font = "11px system-ui, sans-serif";
  paint.textAlign = "center";
  // An edge in the colour of the card keeps numbers readable on every shade.
  paint.strokeStyle = colour("--card");
  paint.lineWidth = 3;
  paint.lineJoin = "round";
  for (const [row, column, number] of matrix.cells) {
    const place = [String(number), margin + (column + 0.5) * cell - 0.5, margin + (row + 0.5) * cell + 3.5, cell - 2];
    paint.strokeText(...place);
    paint.fillText(...place);
  }
}

// Names and numbers of one class, for any number of classes, width and reader.
function classInWords(host, matrix, totals, counts) {
  const count = matrix.labels.length;
  const right = (row) => counts.get(row * count + row) || 0;
  const share = (row) => (totals[row] ? right(row) / totals[row] : 2);
  const key = `matrix ${host.dataset.chart}`;
  if (!(memory[key] < count)) {
    memory[key] = matrix.labels.reduce((worst, _, row) => (share(row) < share(worst) ? row : worst), 0);
  }
  const bar = html("div", { class: "controls" }, host);
  const box = html("label", {}, bar, "Class ");
  const select = html("select", { class: "matrix-class" }, box);
  matrix.labels.forEach((label, index) => html("option", { value: index }, select, label));
  const words = html("p", { class: "matrix-words", role: "status" }, host);
  const listed = (pairs) => pairs.filter(([, number]) => number).sort((a, b) => b[1] - a[1])
    .map(([index, number]) => `${matrix.labels[index]} (${number})`).join(", ");
  const tell = () => {
    const row = memory[key];
    select.value = String(row);
    const others = matrix.labels.map((_, index) => index).filter((index) => index !== row);
    const given = listed(others.map((index) => [index, counts.get(row * count + index) || 0]));
    const taken = listed(others.map((index) => [index, counts.get(index * count + row) || 0]));
    const rate = totals[row] ? ` (${percentText(right(row) / totals[row], 0)})` : "";
    words.textContent = `Right: ${right(row)} of ${totals[row]}${rate}. `
      + `Predicted as ${given || "no other class"}. Predicted as it: ${taken || "no other class"}.`;
  };
  select.addEventListener("change", () => {
    memory[key] = Number(select.value);
    tell();
  });
  tell();
  return (row) => {
    memory[key] = row;
    tell();
  };
}

charts.confusion = (host, data) => matrixChart(host, data.confusion);
charts.confusion_groups = (host, data) => matrixChart(host, data.confusion_groups);

// Shows the wrong images of one class: of it, or taken for it.
charts.wrong = (host) => {
  host.replaceChildren();
  const items = [...host.closest(".card").querySelectorAll("[data-true]")];
  const names = [...new Set(items.flatMap((each) => [each.dataset.true, each.dataset.predicted]))];
  names.sort((a, b) => a.localeCompare(b, undefined, { numeric: true }));
  const bar = html("div", { class: "controls" }, host);
  const box = html("label", {}, bar, "Only ");
  const select = html("select", { id: "wrong-class" }, box);
  html("option", { value: "" }, select, "all classes");
  for (const name of names) html("option", { value: name }, select, name);
  const words = html("span", { role: "status" }, bar);
  const apply = () => {
    const chosen = select.value;
    for (const each of items) each.hidden = Boolean(chosen) && ![each.dataset.true, each.dataset.predicted].includes(chosen);
    const rows = items.filter((each) => each.tagName === "TR" && !each.hidden);
    const own = rows.filter((each) => each.dataset.true === chosen).length;
    const listed = "bounded" in host.dataset ? ", of those listed" : "";
    words.textContent = chosen ? `${own} of this class, ${rows.length - own} predicted as it${listed}` : "";
  };
  select.value = names.includes(memory.wrong) ? memory.wrong : "";
  select.addEventListener("change", () => {
    memory.wrong = select.value;
    apply();
  });
  apply();
};
