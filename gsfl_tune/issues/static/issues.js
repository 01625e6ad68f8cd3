// Checkboxes, and a download of the list of ticked images.

"use strict";

const boxes = [...document.querySelectorAll("input[data-path]")];
const ofPath = new Map(); // path -> all its boxes: an image may have several issues
for (const box of boxes) {
  if (!ofPath.has(box.dataset.path)) ofPath.set(box.dataset.path, []);
  ofPath.get(box.dataset.path).push(box);
}
const count = document.getElementById("ticked-count");
const download = document.getElementById("download");
const untick = document.getElementById("untick");

function ticked() {
  return [...ofPath].filter(([, all]) => all[0].checked).map(([path]) => path);
}

function tick(path, on) {
  for (const each of ofPath.get(path)) each.checked = on;
}

function tell() {
  const found = ticked().length;
  count.textContent = found === 0 ? "nothing ticked" : `${found} image${found === 1 ? "" : "s"} ticked`;
  download.disabled = untick.disabled = found === 0;
}

document.addEventListener("change", (event) => {
  const path = event.target.dataset.path;
  if (path === undefined) return;
  tick(path, event.target.checked);
  tell();
});

document.addEventListener("click", (event) => {
  const kind = event.target.dataset.tick;
  if (kind === undefined) return;
  for (const box of document.getElementById(kind).querySelectorAll("input[data-suggested]")) tick(box.dataset.path, true);
  tell();
});

untick.addEventListener("click", () => {
  for (const box of boxes) box.checked = false;
  tell();
});

download.addEventListener("click", () => {
  const head = `# ${document.body.dataset.name}: left out by hand, for data.exclude\n`;
  const url = URL.createObjectURL(new Blob([head, ticked().join("\n"), "\n"], { type: "text/plain" }));
  const link = document.createElement("a");
  link.href = url;
  link.download = "exclude.txt";
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
});

// On reload, a browser restores the state of each checkbox.
for (const box of boxes) if (box.checked) tick(box.dataset.path, true);
tell();
