"use strict";
// Everything a job says is somebody else's text: it reaches the page through textContent and values only.
const job = JSON.parse(document.getElementById("data").textContent);
const axes = job.axes;
const byPlace = new Map(job.cells.map((cell) => [cell.at.join(), cell]));
const byNumber = new Map(job.cells.map((cell) => [cell.number, cell]));
const NONE = -1;
const SIZES = [64, 96, 128, 192, 256, 384, 512];
const element = (id) => document.getElementById(id);
const state = { x: NONE, y: NONE, at: axes.map(() => 0), size: 128, open: null };

function make(tag, text = "", className = "") {
  const node = document.createElement(tag);
  node.textContent = text;
  node.className = className;
  return node;
}

// State in the link: #x=cfg_scale&y=sampler&at=0.2.1&size=128&cell=7

function defaults() {
  const named = (name) => axes.findIndex((axis) => axis.name === name);
  const free = (taken) => axes.findIndex((axis, index) => index !== taken && axis.titles.length > 1);
  const rows = named(job.layout.rows);
  state.x = named(job.layout.columns);
  if (state.x === NONE) state.x = free(rows);
  state.y = rows !== NONE ? rows : free(state.x);
  if (state.y === state.x) state.y = NONE;
  const first = job.cells[0];
  state.at = first ? [...first.at] : axes.map(() => 0);
  const widest = Math.max(0, ...Object.values(job.size));
  state.size = SIZES.find((size) => size >= Math.min(192, Math.max(128, widest))) || 192;
}

function readLink() {
  defaults();
  const saved = new URLSearchParams(location.hash.slice(1));
  const axis = (name) => axes.findIndex((entry) => entry.name === name);
  if (saved.has("x")) state.x = axis(saved.get("x"));
  if (saved.has("y")) state.y = axis(saved.get("y"));
  if (state.y === state.x) state.y = NONE;
  (saved.get("at") || "").split(".").forEach((text, index) => {
    const value = Number.parseInt(text, 10);
    if (index < axes.length && value >= 0 && value < axes[index].titles.length) state.at[index] = value;
  });
  if (SIZES.includes(Number(saved.get("size")))) state.size = Number(saved.get("size"));
  const cell = byNumber.get(Number(saved.get("cell")));
  state.open = cell ? cell.number : null;
  if (cell) state.at = [...cell.at];
}

function writeLink() {
  const saved = new URLSearchParams();
  saved.set("x", state.x === NONE ? "" : axes[state.x].name);
  saved.set("y", state.y === NONE ? "" : axes[state.y].name);
  saved.set("at", state.at.join("."));
  saved.set("size", String(state.size));
  if (state.open !== null) saved.set("cell", String(state.open));
  history.replaceState(null, "", "#" + saved);
}

// The controls

function choice(label, id, options, chosen, change) {
  const wrapper = make("label", label);
  const select = make("select");
  select.id = id;
  for (const [value, text] of options) {
    const option = make("option", text.length > 80 ? text.slice(0, 79) + "…" : text);
    option.value = String(value);
    option.title = text;
    option.selected = value === chosen;
    select.append(option);
  }
  select.addEventListener("change", () => { change(Number(select.value)); refresh(); element(id).focus(); });
  wrapper.append(select);
  return wrapper;
}

function place(side, other, axis) {
  // Choosing the axis of the other side swaps the two.
  if (axis !== NONE && axis === state[other]) state[other] = state[side];
  state[side] = axis;
}

function controls() {
  const names = [[NONE, "–"], ...axes.map((axis, index) => [index, axis.name])];
  const parts = [];
  if (axes.length) {
    parts.push(choice("X:", "axis-x", names, state.x, (axis) => place("x", "y", axis)));
    parts.push(choice("Y:", "axis-y", names, state.y, (axis) => place("y", "x", axis)));
  }
  axes.forEach((axis, index) => {
    if (index === state.x || index === state.y) return;
    const titles = axis.titles.map((title, value) => [value, title]);
    parts.push(choice(axis.name + ":", "value-" + index, titles, state.at[index],
      (value) => { state.at[index] = value; }));
  });
  parts.push(choice("Size:", "size", SIZES.map((size) => [size, size + " px"]), state.size,
    (size) => { state.size = size; }));
  element("controls").replaceChildren(...parts);
}

// The table

function titlesOf(axis) {
  return axis === NONE ? [""] : axes[axis].titles;
}

function cellAt(column, row) {
  const at = [...state.at];
  if (state.x !== NONE) at[state.x] = column;
  if (state.y !== NONE) at[state.y] = row;
  return byPlace.get(at.join());
}

function link(file) {
  return file.split("/").map(encodeURIComponent).join("/");
}

function picture(cell, lazy) {
  const image = make("img");
  image.alt = "cell " + cell.number;
  if (lazy) image.loading = "lazy";
  image.decoding = "async";
  image.addEventListener("load", () => {
    // A small picture shown large is shown pixel by pixel.
    const small = Math.max(image.naturalWidth, image.naturalHeight) <= 256;
    image.classList.toggle("small", small);
    image.classList.toggle("pixels", small && image.clientWidth > image.naturalWidth);
  });
  image.addEventListener("error", () => {
    const words = make("span", "picture is missing: " + cell.file, "words");
    if (image.parentElement && image.parentElement.id !== "stage") image.parentElement.classList.add("missing");
    image.replaceWith(words);
  });
  image.src = link(cell.file);
  return image;
}

function tile(cell) {
  const button = make("button", "", "cell");
  button.type = "button";
  if (!cell) {
    button.classList.add("skipped");
    button.disabled = true;
    button.append(make("span", "skipped", "words"));
    return button;
  }
  button.dataset.number = String(cell.number);
  button.setAttribute("aria-label", "cell " + cell.number + ", " + cell.status);
  if (cell.status === "done") {
    button.append(picture(cell, true));
  } else {
    button.classList.add(cell.status);
    button.append(make("span", cell.error ? "failed: " + cell.error : cell.status, "words"));
    button.title = cell.error || cell.status;
  }
  button.addEventListener("click", () => show(cell));
  return button;
}

function header(title, scope) {
  const cell = make("th");
  cell.scope = scope;
  cell.append(make("div", title === "" ? "(empty)" : title, "label"));
  cell.title = title;
  return cell;
}

function table() {
  const grid = element("grid");
  const [width, height] = [job.size.width || 1, job.size.height || 1];
  grid.style.setProperty("--cell", state.size + "px");
  grid.style.setProperty("--cell-height", Math.max(32, Math.round(state.size * height / width)) + "px");
  const columns = titlesOf(state.x);
  const rows = titlesOf(state.y);
  const head = make("thead");
  const labels = make("tr");
  const names = [state.y, state.x].map((axis) => (axis === NONE ? "" : axes[axis].name));
  const corner = make("th", [names[0] && names[0] + " ↓", names[1] && names[1] + " →"].filter(Boolean).join("  "), "corner");
  labels.append(corner);
  if (state.x !== NONE) columns.forEach((title) => labels.append(header(title, "col")));
  head.append(labels);
  const body = make("tbody");
  rows.forEach((title, row) => {
    const line = make("tr");
    line.append(state.y === NONE ? make("th") : header(title, "row"));
    columns.forEach((_, column) => {
      const slot = make("td");
      slot.append(tile(cellAt(column, row)));
      line.append(slot);
    });
    body.append(line);
  });
  grid.replaceChildren(head, body);
  const shown = rows.length * columns.length;
  const count = (status) => job.cells.filter((cell) => cell.status === status).length;
  element("counts").textContent = `Showing ${shown} places of ${job.cells.length} cells: ` +
    `${count("done")} done, ${count("failed")} failed, ${count("pending")} pending. ${job.made}`;
}

// One cell, large

function fact(list, name, value) {
  if (value === "" || value === null || value === undefined) return;
  list.push(make("dt", name), make("dd", String(value)));
}

function show(cell) {
  state.open = cell.number;
  state.at = [...cell.at];
  const title = axes.map((axis, index) => axis.name + ": " + axis.titles[cell.at[index]]).join(", ");
  element("heading").textContent = "Cell " + cell.number + (title ? " – " + title : "");
  const facts = [];
  fact(facts, "status", cell.status);
  fact(facts, "error", cell.error);
  for (const [name, value] of Object.entries({ ...job.shared, ...cell.settings })) fact(facts, name, value);
  fact(facts, "evaluations", cell.evaluations);
  for (const [name, value] of Object.entries(cell.columns || {})) fact(facts, name, value);
  fact(facts, "seconds", cell.seconds);
  fact(facts, "worker", cell.worker);
  fact(facts, "finished", cell.finished);
  fact(facts, "attempts", cell.attempts);
  fact(facts, "remark", cell.remark);
  fact(facts, "file", cell.file);
  fact(facts, "key", cell.key);
  element("facts").replaceChildren(...facts);
  element("infotext").textContent = cell.infotext;
  const large = cell.status === "done" ? picture(cell, false) : make("p", cell.error || cell.status, "words " + cell.status);
  element("stage").replaceChildren(large);
  if (!element("viewer").open) element("viewer").showModal();
  writeLink();
}

const MOVES = { ArrowLeft: ["x", -1], ArrowRight: ["x", 1], ArrowUp: ["y", -1], ArrowDown: ["y", 1] };

function neighbour(cell, key) {
  // The next cell that way; places that a rule skipped are stepped over.
  const [side, step] = MOVES[key];
  const axis = state[side];
  if (axis === NONE) return null;
  for (let value = cell.at[axis] + step; value >= 0 && value < axes[axis].titles.length; value += step) {
    const next = byPlace.get(cell.at.map((old, index) => (index === axis ? value : old)).join());
    if (next) return next;
  }
  return null;
}

function move(event) {
  if (!(event.key in MOVES) || event.ctrlKey || event.altKey || event.metaKey) return;
  const viewing = element("viewer").open;
  const focused = document.activeElement && document.activeElement.dataset.number;
  const cell = byNumber.get(viewing ? state.open : Number(focused));
  const next = cell && neighbour(cell, event.key);
  if (!cell) return;
  event.preventDefault();
  if (!next) return;
  if (viewing) show(next);
  else tileOf(next.number).focus();
}

function tileOf(number) {
  return element("grid").querySelector(`[data-number="${number}"]`);
}

function refresh() {
  controls();
  table();
  writeLink();
}

element("viewer").addEventListener("close", () => {
  const number = state.open;
  state.open = null;
  refresh();
  const last = tileOf(number);
  if (last) last.focus();
});
element("viewer").addEventListener("click", (event) => {
  if (event.target === element("viewer")) element("viewer").close();
});
element("close").addEventListener("click", () => element("viewer").close());
element("controls").addEventListener("submit", (event) => event.preventDefault());
document.addEventListener("keydown", move);
window.addEventListener("hashchange", () => { readLink(); start(); });

function start() {
  const open = state.open;
  refresh();
  if (open !== null) show(byNumber.get(open));
  else if (element("viewer").open) element("viewer").close();
}

element("name").textContent = job.name;
element("shared").textContent = Object.entries(job.heading)
  .map(([name, value]) => name + ": " + value).join(" · ");
for (const file of job.files) {
  const anchor = make("a", file);
  anchor.href = link(file);
  element("links").append(anchor);
}
readLink();
start();
