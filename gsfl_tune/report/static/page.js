// Tabs, sortable tables, and updates from the server of `gsfl-tune watch`.

const root = document.documentElement;
let pageData = JSON.parse(document.getElementById("run-data").textContent);

// --- charts --------------------------------------------------------------------------------

function draw(scope) {
  for (const host of scope.querySelectorAll("[data-chart]")) {
    // A hidden chart has no width: it is drawn when its tab opens.
    if (!host.clientWidth) continue;
    const seen = `${host.clientWidth}|${isDark()}|${root.classList.contains("printing")}`;
    if (host.dataset.drawn === seen) continue;
    host.dataset.drawn = seen;
    try {
      charts[host.dataset.chart](host, pageData);
    } catch (error) {
      // One failed chart must not break the others; a test looks for this on the console.
      host.textContent = `This chart could not be drawn: ${error.message}`;
      console.error(host.dataset.chart, error);
    }
  }
}

function redraw(scope) {
  for (const host of scope.querySelectorAll("[data-chart]")) delete host.dataset.drawn;
  draw(scope);
}

// --- tabs ----------------------------------------------------------------------------------

const tabs = () => [...document.querySelectorAll("[role=tab]")];

function openTab(name, { scroll = false } = {}) {
  const target = name ? document.getElementById(name) : null;
  const panel = target ? target.closest(".panel") : document.querySelector(".panel");
  if (!panel) return;
  for (const each of document.querySelectorAll(".panel")) each.classList.toggle("open", each === panel);
  for (const tab of tabs()) {
    const chosen = tab.getAttribute("aria-controls") === panel.id;
    tab.setAttribute("aria-selected", String(chosen));
    tab.tabIndex = chosen ? 0 : -1;
    if (chosen) tab.parentElement.scrollLeft = Math.max(0, tab.offsetLeft - 40);
  }
  draw(panel);
  restore(panel);
  if (scroll && target && target !== panel) target.scrollIntoView();
}

// Hidden elements lose their scroll position; every tab has its own position too.
const places = new Map(); // id of a scrolling element -> [left, top]
const tops = new Map(); // id of a panel -> top of the window

document.addEventListener("scroll", (event) => {
  const { id, clientHeight, scrollLeft, scrollTop } = event.target;
  if (id && clientHeight) places.set(id, [scrollLeft, scrollTop]);
}, { capture: true, passive: true });

function restore(scope) {
  for (const each of scope.querySelectorAll("[id].scroll-x, [id].scroll-y")) {
    if (places.has(each.id)) [each.scrollLeft, each.scrollTop] = places.get(each.id);
  }
}

document.addEventListener("click", (event) => {
  const tab = event.target.closest("[role=tab]");
  if (tab) {
    event.preventDefault();
    // Assigning the hash would make the browser jump.
    history.replaceState(null, "", tab.getAttribute("href"));
    const next = tab.getAttribute("aria-controls");
    const before = document.querySelector(".panel.open");
    if (before) tops.set(before.id, scrollY);
    openTab(next);
    const top = tops.get(next) ?? Math.min(scrollY, document.getElementById("head").offsetHeight);
    if (!before || before.id !== next) window.scrollTo({ top, behavior: "instant" });
    return;
  }
  const copy = event.target.closest("[data-copy]");
  if (copy) {
    copyText(copy);
    return;
  }
  const head = event.target.closest("table.sortable th button");
  if (head) sortBy(head.closest("th"));
});

document.addEventListener("keydown", (event) => {
  if (!event.target.matches || !event.target.matches("[role=tab]")) return;
  const all = tabs();
  const at = all.indexOf(event.target);
  const next = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: all.length - 1 }[event.key];
  if (next === undefined) {
    if (event.key === " " || event.key === "Enter") {
      event.preventDefault();
      event.target.click();
    }
    return;
  }
  event.preventDefault();
  const target = all[(next + all.length) % all.length];
  target.click();
  target.focus();
});

window.addEventListener("hashchange", () => openTab(location.hash.slice(1), { scroll: true }));

async function copyText(button) {
  const text = document.getElementById(button.dataset.copy).textContent;
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "copied";
  } catch {
    // Without permission, select the text so that Ctrl-C copies it.
    getSelection().selectAllChildren(document.getElementById(button.dataset.copy));
    button.textContent = "marked";
  }
  setTimeout(() => { button.textContent = "copy"; }, 1500);
}

// --- tables --------------------------------------------------------------------------------

const sorted = {}; // id of a table -> [column, direction]

function sortBy(head, direction = null) {
  const table = head.closest("table");
  const column = [...head.parentElement.children].indexOf(head);
  const before = head.getAttribute("aria-sort");
  const first = head.dataset.first || "ascending";
  const other = { ascending: "descending", descending: "ascending" };
  const chosen = direction || (before in other ? other[before] : first);
  for (const each of head.parentElement.children) each.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", chosen);
  sorted[table.id] = [column, chosen];
  const sign = chosen === "ascending" ? 1 : -1;
  const body = table.tBodies[0];
  const keys = new Map([...body.rows].map((row) => [row, key(row.cells[column])]));
  const rows = [...body.rows].sort((a, b) => {
    const [one, two] = [keys.get(a), keys.get(b)];
    // Missing values come last in both directions.
    if (one === null || two === null) return (one === null) - (two === null);
    if (typeof one === "number" && typeof two === "number") return sign * (one - two);
    if (typeof one !== typeof two) return sign * (typeof one === "number" ? -1 : 1);
    return sign * String(one).localeCompare(String(two), undefined, { numeric: true });
  });
  body.append(...rows);
}

function key(cell) {
  const value = cell.dataset.v;
  if (value !== undefined) return value === "" ? null : Number(value);
  // A badge behind the text is not part of the sort key.
  const first = cell.querySelector("[data-key]") || cell.firstChild;
  const text = first ? first.textContent.trim() : "";
  if (text === "" || text === "–") return null;
  // Nor is an error or an interval.
  const number = /^([+-]?\d+(?:\.\d+)?(?:e[+-]?\d+)?)(?: %)?(?: ± .*| \([\d.]+ to [\d.]+\))?$/i.exec(text);
  return number ? Number(number[1]) : text;
}

// --- controls of charts --------------------------------------------------------------------

document.addEventListener("change", (event) => {
  const name = event.target.dataset && event.target.dataset.memory;
  if (!name) return;
  memory[name] = event.target.checked;
  redraw(event.target.closest("figure"));
});

// --- size, theme, print --------------------------------------------------------------------

let waiting = null;
window.addEventListener("resize", () => {
  clearTimeout(waiting);
  waiting = setTimeout(() => draw(document), 120);
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => draw(document));
let folded = [];
window.addEventListener("beforeprint", () => {
  root.classList.add("printing");
  folded = [...document.querySelectorAll("details:not([open])")];
  for (const each of folded) each.open = true;
  draw(document);
});
window.addEventListener("afterprint", () => {
  root.classList.remove("printing");
  for (const each of folded) each.open = false;
  draw(document);
});
window.addEventListener("scroll", hideTip, { passive: true });

// --- updates -------------------------------------------------------------------------------

// Replaces what has changed and keeps the user's state: open tab, scroll position, order of
// tables, opened details, chosen options.
function replacePage(text) {
  const next = new DOMParser().parseFromString(text, "text/html");
  const anchor = onScreen();
  const unfolded = new Map([...document.querySelectorAll("details[id]")].map((each) => [each.id, each.open]));
  const focus = document.activeElement && document.activeElement.id;
  const heights = new Map([...document.querySelectorAll("[data-chart]")].map(
    (each) => [each.dataset.chart, each.offsetHeight]));
  hideTip();
  pageData = JSON.parse(next.getElementById("run-data").textContent);
  document.title = next.title;
  for (const id of ["head", "foot"]) {
    document.getElementById(id).replaceWith(document.importNode(next.getElementById(id), true));
  }
  for (const panel of document.querySelectorAll(".panel")) {
    const newer = next.getElementById(panel.id);
    if (newer) panel.replaceChildren(...document.importNode(newer, true).childNodes);
  }
  for (const [id, open] of unfolded) {
    const each = document.getElementById(id);
    if (each) each.open = open;
  }
  for (const [id, [column, direction]] of Object.entries(sorted)) {
    const table = document.getElementById(id);
    const head = table && table.tHead.rows[0].cells[column];
    if (head) sortBy(head, direction);
  }
  for (const box of document.querySelectorAll("[data-memory]")) box.checked = Boolean(memory[box.dataset.memory]);
  for (const host of document.querySelectorAll(".panel:not(.open) [data-chart]")) {
    const height = heights.get(host.dataset.chart);
    if (height) host.style.minHeight = `${height}px`;
  }
  draw(document);
  restore(document);
  if (focus && document.getElementById(focus)) document.getElementById(focus).focus({ preventScroll: true });
  if (anchor && document.getElementById(anchor.id)) {
    const now = document.getElementById(anchor.id).getBoundingClientRect().top;
    window.scrollBy({ top: now - anchor.top, behavior: "instant" });
  }
}

function onScreen() {
  for (const each of document.querySelectorAll(".panel.open [id]")) {
    const { top, bottom, height } = each.getBoundingClientRect();
    if (height && bottom > 0 && top < innerHeight) return { id: each.id, top };
  }
  return null;
}

let version = root.dataset.version;

async function look() {
  const state = document.getElementById("live");
  try {
    if (document.hidden) return;
    const told = await (await fetch("version", { cache: "no-store" })).json();
    if (told.version !== version) {
      const answer = await fetch("./", { cache: "no-store" });
      if (!answer.ok) throw new Error(`the server answers ${answer.status}`);
      replacePage(await answer.text());
      version = told.version;
    }
    const live = document.getElementById("live");
    const now = `as of ${new Date().toLocaleTimeString()}`;
    live.textContent = told.problem || (told.left ? `${told.left}, ${now}` : now);
    live.classList.toggle("trouble", Boolean(told.problem));
  } catch (error) {
    if (state) {
      state.textContent = `no update: ${error.message}`;
      state.classList.add("trouble");
    }
  } finally {
    setTimeout(look, Number(root.dataset.live));
  }
}

root.classList.add("js");
openTab(location.hash.slice(1), { scroll: true });
if (root.dataset.live) setTimeout(look, Number(root.dataset.live));
