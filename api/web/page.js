// The web page: a picture in, its nearest images out; a click on a hit asks for more like that one.
"use strict";

const element = (id) => document.getElementById(id);
let indexes = [];
let latest = 0; // answers to any but the latest question are dropped

async function ask(path, options = {}) {
  const response = await fetch(path, options);
  if (!response.ok) {
    if (response.status === 401) element("login").hidden = false;
    const problem = await response.json().catch(() => ({}));
    throw new Error(problem.detail || `The server answered ${response.status}.`);
  }
  return response;
}

async function loadIndexes() {
  indexes = (await (await ask("v1/indexes")).json()).indexes;
  element("index").replaceChildren(...indexes.map((index) => new Option(index.name)));
  showSpaces();
}

function showSpaces() {
  const index = indexes.find((one) => one.name === element("index").value);
  if (!index) return;
  const option = (space) => new Option(space.name, space.name, space.default, space.default);
  element("space").replaceChildren(...index.spaces.map(option));
  element("served").textContent = `${index.count.toLocaleString()} images in ${index.name}`;
}

async function show(request) {
  const turn = ++latest;
  element("status").textContent = "Searching…";
  try {
    const answer = await (await request()).json();
    if (turn !== latest) return;
    const left = cut() && answer.hits.every((hit) => hit.fmr !== null) ? "; what scores like random pictures is left out" : "";
    element("status").textContent = `${answer.hits.length} hits in ${Math.round(answer.took_ms.total)} ms${left}`;
    element("hits").replaceChildren(...answer.hits.map(cell));
  } catch (error) {
    if (turn === latest) element("status").textContent = error.message;
  }
}

// Where the server knows which scores come about by chance, it leaves out such hits.
const cut = () => !element("unlikely").checked;

function cell(hit) {
  const name = hit.path ? hit.path.split(/[\\/]/).pop() : hit.id.slice(0, 12);
  const item = document.createElement("li");
  const button = document.createElement("button");
  const picture = document.createElement("img");
  const caption = document.createElement("small");
  button.type = "button";
  button.title = `More like ${name}`;
  button.addEventListener("click", () => similar(hit.id));
  picture.alt = name;
  picture.loading = "lazy";
  picture.src = `v1/images/${hit.id}/thumbnail?${new URLSearchParams({ size: 256, index: element("index").value })}`;
  picture.addEventListener("error", () => picture.replaceWith("no picture"));
  caption.textContent = name;
  caption.title = hit.path || hit.id;
  button.append(picture);
  const probable = hit.probability == null ? "" : ` (${Math.round(100 * hit.probability)}%)`; // that it is alike
  item.append(button, `${hit.score.toFixed(3)}${probable}`, caption);
  return item;
}

const options = () => ({
  k: element("k").value, index: element("index").value, space: element("space").value, ...(cut() && { max_fmr: "auto" }),
});

let again = () => {}; // the latest question
function similar(id) {
  current = null;
  again = () => show(() => ask(`v1/images/${id}/similar?${new URLSearchParams(options())}`));
  again();
}

let current = null;
function search(file) {
  current = file;
  const preview = element("preview");
  preview.src = URL.createObjectURL(file);
  preview.hidden = false;
  again = () => {
    const form = new FormData();
    form.set("image", file);
    for (const [name, value] of Object.entries(options())) form.set(name, value);
    show(() => ask("v1/search/image", { method: "POST", body: form }));
  };
  again();
}

function given(file) {
  if (file) search(file);
  else element("status").textContent = "That is not an image file. Save the image first, or copy the image itself.";
}

const drop = element("drop");
element("image").addEventListener("change", (event) => { if (event.target.files[0]) search(event.target.files[0]); });
drop.addEventListener("dragover", (event) => { event.preventDefault(); drop.classList.add("over"); });
drop.addEventListener("dragleave", () => drop.classList.remove("over"));
drop.addEventListener("drop", (event) => {
  event.preventDefault();
  drop.classList.remove("over");
  given(event.dataTransfer.files[0]);
});
document.addEventListener("paste", (event) => {
  if (event.target && event.target.matches && event.target.matches("input")) return; // text for that field
  given(event.clipboardData.files[0]);
});
element("query").addEventListener("submit", (event) => event.preventDefault());
element("index").addEventListener("change", () => {
  showSpaces();
  if (current) return search(current);
  again = () => {}; // the other index does not have the picture that was asked for
  element("hits").replaceChildren();
});
for (const name of ["space", "k", "unlikely"]) element(name).addEventListener("change", () => again());
element("key").addEventListener("change", () => login());

async function login() {
  // The key becomes a cookie that no script can read, and that goes along with every picture.
  const body = JSON.stringify({ key: element("key").value });
  try {
    await ask("session", { method: "POST", headers: { "Content-Type": "application/json" }, body });
    element("key").value = "";
    element("login").hidden = true;
    element("status").textContent = "";
    start();
  } catch (error) {
    element("status").textContent = error.message;
  }
}

function start() {
  loadIndexes().catch((error) => { element("status").textContent = error.message; });
}
start();
