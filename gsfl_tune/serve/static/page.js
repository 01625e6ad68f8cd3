// The page of `gsfl-tune serve`: one image in, classes, a map and near training images out.
"use strict";

const at = (id) => document.getElementById(id);
const percent = (value) => `${(100 * value).toFixed(1)} %`;

let about = null; // what GET / says
let image = null; // the File or Blob that was chosen last
let own = ""; // blob: URL of it
let turn = 0; // counts images: an answer to an earlier one is late

async function told(path, options) {
  let answer;
  try {
    answer = await fetch(path, { headers: { Accept: "application/json" }, cache: "no-store", ...options });
  } catch {
    throw new Error("the server does not answer");
  }
  let content = null;
  try {
    content = await answer.json();
  } catch {
    throw new Error(`the server answered ${answer.status}`);
  }
  if (!answer.ok) throw new Error(content.reason || `the server answered ${answer.status}`);
  return content;
}

const ask = (path, body) => told(path, { method: "POST", body });

function fail(error) {
  at("status").textContent = "";
  at("problem").textContent = `${error.message.charAt(0).toUpperCase()}${error.message.slice(1)}.`;
  at("problem").hidden = false;
}

function preview(file) {
  if (own) URL.revokeObjectURL(own);
  own = URL.createObjectURL(file);
  const picture = at("preview");
  picture.onerror = () => {
    // The server reads more formats than browsers do.
    picture.hidden = true;
    at("caption").textContent = "This browser cannot show the image; the server can read it.";
  };
  picture.hidden = false;
  picture.alt = file.name ? `Your image, ${file.name}` : "Your image";
  picture.src = own;
  at("caption").textContent = file.name || "";
  at("scale").hidden = true;
  at("map").setAttribute("aria-pressed", "false");
}

function row(name, probability) {
  const line = document.createElement("tr");
  const head = document.createElement("th");
  head.scope = "row";
  head.textContent = name;
  const cell = document.createElement("td");
  const bar = document.createElement("meter");
  bar.min = 0;
  bar.max = 1;
  bar.value = probability;
  bar.textContent = percent(probability);
  bar.setAttribute("aria-hidden", "true"); // the number follows
  cell.append(bar, percent(probability));
  line.append(head, cell);
  return line;
}

function show({ classes, probabilities, unknown }) {
  at("classes").replaceChildren(...classes.map((name, index) => row(name, probabilities[index])));
  at("map-class").replaceChildren(...classes.map((name) => new Option(name, name)));
  at("answer").textContent = unknown ? "Unknown" : classes[0];
  at("unknown").hidden = !unknown;
  at("unknown").textContent = `No class reaches ${percent(about.threshold || 0)}, the threshold of this model. The most probable ones are listed.`;
  at("status").textContent = unknown
    ? `Unknown; most probable is ${classes[0]}, ${percent(probabilities[0])}.`
    : `${classes[0]}, ${percent(probabilities[0])}.`;
  at("result").hidden = false;
}

async function near(file, number) {
  if (!about.neighbours) return;
  const { neighbours } = await ask("neighbours", file);
  if (number !== turn) return;
  at("neighbours").replaceChildren(...neighbours.map((each) => {
    const item = document.createElement("li");
    const picture = document.createElement("img");
    picture.src = each.picture;
    picture.alt = "";
    const name = document.createElement("b");
    name.textContent = each.class;
    item.append(picture, name, ` ${each.similarity.toFixed(2)}`);
    item.title = each.name;
    return item;
  }));
  at("near").hidden = false;
}

async function use(file) {
  if (!file) return;
  turn += 1;
  const number = turn;
  image = file;
  at("problem").hidden = true;
  at("result").hidden = true;
  at("near").hidden = true;
  at("status").textContent = "Looking at the image …";
  try {
    if (!about) await describe();
    if (file.size > about.limits.max_bytes) {
      throw new Error(`the image has ${(file.size / 1e6).toFixed(1)} MB, the server takes ${(about.limits.max_bytes / 1e6).toFixed(1)} MB`);
    }
    const threshold = about.threshold === null ? "" : "&threshold=auto";
    const { predictions } = await ask(`predict?top=5${threshold}`, file);
    if (number !== turn) return;
    preview(file);
    show(predictions[0]);
    await near(file, number);
  } catch (error) {
    if (number === turn) fail(error);
  }
}

async function draw() {
  const number = turn;
  const name = at("map-class").value;
  at("map").disabled = true;
  at("problem").hidden = true;
  at("status").textContent = "Drawing the heat map …";
  try {
    const found = await ask(`explain?class=${encodeURIComponent(name)}`, image);
    if (number !== turn) return;
    const picture = at("preview");
    picture.onerror = null;
    picture.src = found.picture;
    picture.hidden = false;
    picture.alt = `Heat map over your image: the brighter, the more evidence for ${found.class}`;
    at("caption").textContent = `Evidence for ${found.class} (${percent(found.probability)}). The picture shows the part of the image that the model sees.`;
    at("scale").hidden = false;
    at("map").setAttribute("aria-pressed", "true");
    at("status").textContent = `Heat map for ${found.class}.`;
  } catch (error) {
    if (number === turn) fail(error);
  } finally {
    at("map").disabled = false;
  }
}

async function toggle() {
  if (at("map").getAttribute("aria-pressed") !== "true") {
    await draw();
    at("map").focus();
    return;
  }
  preview(image);
  at("status").textContent = "Your image.";
}

async function describe() {
  about = await told("./");
  at("name").textContent = about.name || "An image classifier";
  document.title = `${about.name || "Image classifier"} · gsfl-tune`;
  const accuracy = about.test && about.test.accuracy;
  at("about").textContent = `${about.classes.length} classes${accuracy ? `; ${percent(accuracy.mean)} of the test images were right` : ""}.`;
  at("views").hidden = !about.maps;
}

for (const id of ["file", "camera"]) {
  at(id).addEventListener("change", (event) => {
    const [file] = event.target.files;
    use(file);
    event.target.value = ""; // the same file can be chosen again
  });
}
at("map").addEventListener("click", toggle);
at("map-class").addEventListener("change", () => {
  if (at("map").getAttribute("aria-pressed") === "true") draw();
});

const images = (list) => [...(list || [])].find((file) => file.type.startsWith("image/") || /\.(heic|heif|avif|jp2|tiff?)$/i.test(file.name));
for (const kind of ["dragenter", "dragover"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    document.body.classList.add("dropping");
  });
}
document.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) document.body.classList.remove("dropping");
});
document.addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("dropping");
  const file = images(event.dataTransfer.files);
  if (file) use(file);
  else fail(new Error("what was dropped is not an image file"));
});
document.addEventListener("paste", (event) => {
  const file = images(event.clipboardData && event.clipboardData.files);
  if (file) use(file);
});

describe().catch(fail);
