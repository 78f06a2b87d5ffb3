// The page: what is looked at, what the controls say, and when to draw.

import { Contrast, histogram } from "./contrast.js";
import { drawVolume, frameOf, neededTiles, valueAt, voxelUrl } from "./drawing.js";
import {
  ORIENTATIONS, align, faces, inside, lengthText, levelFor, roundLength, voxelAt,
} from "./geometry.js";
import { Tiles } from "./tiles.js";

const $ = (id) => document.getElementById(id);
const main = document.querySelector("main");
const PATIENCE_MS = 150; // for a new slice, before a coarser image of it is shown
const REST_MS = 120; // of the pointer, before the voxel itself is read
const WHEEL = 40; // of a finger's way on a touchpad, for one slice

let volumes = [];
let reference = null;
let contrast = null;
let panes = [];
const view = {
  axis: "z", centre: [0, 0, 0], pixel: 1, fitted: true, t: 0, c: 0, mode: "side", edge: 0.5,
};
let pointer = null; // where it is in the world, and on which pane
let exact = null; // values of the voxel under a pointer at rest
let changedAt = 0;
const tiles = new Tiles(draw, fail);

const orientation = () => ORIENTATIONS[view.axis];
const finest = () => reference.levels[0];
const shown = () => volumes.filter((volume) => volume.shown);
const has = (volume) => view.c < volume.channels.length;

start().catch((error) => fail(error.message));

async function start() {
  const answer = await fetch("volumes.json");
  volumes = (await answer.json()).volumes;
  reference = volumes.find((volume) => volume.role === "denoised") ?? volumes.at(-1);
  for (const volume of volumes) {
    volume.shown = true;
    const alone = volumes.filter((other) => other.role === volume.role).length === 1;
    volume.label = alone && volume.role !== "volume" ? volume.role : volume.name;
  }
  align(volumes, reference);
  contrast = new Contrast(volumes, reference);
  view.centre = [0, 1, 2].map((axis) => {
    const { origin, scale, shape } = finest();
    return origin[axis] + Math.floor(shape[axis] / 2) * scale[axis];
  });
  fillControls();
  layOut();
  fit();
  await contrast.measure(view);
  new ResizeObserver(refit).observe($("panes"));
  draw();
}

function fail(message) {
  $("alert").hidden = false;
  $("alert").firstElementChild.textContent = `Not all can be shown: ${message}`;
}

// ---- what is looked at

function slice() {
  const { normal } = orientation();
  const index = voxelAt(finest(), normal, view.centre[normal]);
  return Math.min(Math.max(0, index), finest().shape[normal] - 1);
}

function goTo(index) {
  const { normal } = orientation();
  const kept = Math.min(Math.max(0, Math.round(index)), finest().shape[normal] - 1);
  if (Number.isNaN(kept)) return;
  view.centre[normal] = finest().origin[normal] + kept * finest().scale[normal];
  changedAt = performance.now();
  exact = null;
  draw();
}

function fit() {
  const { rows, columns } = orientation();
  const box = panes[0].canvas.getBoundingClientRect();
  for (const axis of [rows, columns]) {
    const [first, last] = faces(finest(), axis);
    view.centre[axis] = (first + last) / 2;
  }
  const size = (axis) => finest().shape[axis] * finest().scale[axis];
  view.pixel = 1.04 * Math.max(size(rows) / box.height, size(columns) / box.width);
  view.fitted = true;
  draw();
}

// After the panes or the plane changed: all is seen again, if all was.
function refit() {
  if (view.fitted) fit();
  draw();
}

function zoom(factor, at) {
  const { rows, columns } = orientation();
  const size = (axis) => finest().shape[axis] * finest().scale[axis];
  const most = Math.max(size(rows), size(columns)) / 40;
  const least = Math.min(finest().scale[rows], finest().scale[columns]) / 80;
  const pixel = Math.min(Math.max(view.pixel / factor, least), most);
  const change = pixel / view.pixel;
  for (const axis of at ? [rows, columns] : []) {
    view.centre[axis] = at[axis] + (view.centre[axis] - at[axis]) * change;
  }
  Object.assign(view, { pixel, fitted: false });
  draw();
}

function move(down, right) {
  const { rows, columns } = orientation();
  const clamp = (axis, world) => {
    const [first, last] = faces(finest(), axis);
    return Math.min(Math.max(first, world), last);
  };
  view.centre[rows] = clamp(rows, view.centre[rows] + down * view.pixel);
  view.centre[columns] = clamp(columns, view.centre[columns] + right * view.pixel);
  view.fitted = false;
  draw();
}

function turn(axis) {
  view.axis = axis;
  goTo(slice());
  refit();
}

function compare(mode) {
  view.mode = shown().length > 1 ? mode : "side";
  layOut();
  refit();
}

async function choose(changes) {
  Object.assign(view, changes);
  exact = null;
  main.dataset.idle = "false";
  try {
    await contrast.measure(view);
  } catch (error) {
    fail(error.message);
  }
  draw();
}

// ---- panes

function layOut() {
  const visible = shown();
  const groups = view.mode === "swipe" ? [visible.slice(0, 2)] : visible.map((volume) => [volume]);
  $("panes").replaceChildren();
  $("panes").dataset.mode = view.mode;
  $("panes").style.setProperty("--columns", groups.length < 4 ? groups.length : 2);
  panes = groups.map(makePane);
  for (const pane of panes) $("panes").append(pane.element);
}

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

function makePane(group) {
  const canvas = element("canvas", { tabIndex: 0 });
  canvas.setAttribute("role", "img");
  const level = element("span", { className: "level" });
  const title = element("h2", {}, group[0].label);
  if (group[0].label !== group[0].name && group.length === 1) {
    title.append(element("span", { textContent: group[0].name }));
  }
  title.append(level);
  if (group.length > 1) {
    title.append(element("span", { className: "right", textContent: group[1].label }));
  }
  const scale = element("div", { className: "scale" });
  const cross = element("div", { className: "cross", hidden: true });
  const note = element("div", { className: "note" });
  const stage = element("div", { className: "stage" }, canvas, note, scale, cross);
  const made = { group, canvas, level, scale, cross, note, stage };
  if (group.length > 1) stage.append((made.edge = makeEdge(stage)));
  made.element = element("section", { className: "pane" }, title, stage);
  made.element.setAttribute("aria-label", group.map((volume) => volume.label).join(" and "));
  listen(made);
  return made;
}

function makeEdge(stage) {
  const edge = element("div", { className: "edge", tabIndex: 0 });
  edge.setAttribute("role", "slider");
  edge.setAttribute("aria-label", "Edge between the two volumes");
  edge.setAttribute("aria-valuemin", "0");
  edge.setAttribute("aria-valuemax", "100");
  edge.addEventListener("pointerdown", (event) => edge.setPointerCapture(event.pointerId));
  edge.addEventListener("pointermove", (event) => {
    if (!edge.hasPointerCapture(event.pointerId)) return;
    const box = stage.getBoundingClientRect();
    moveEdge((event.clientX - box.left) / box.width);
  });
  edge.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -0.02, ArrowRight: 0.02 }[event.key];
    const place = { Home: 0, End: 1 }[event.key] ?? (step && view.edge + step);
    if (place === undefined) return;
    event.preventDefault();
    event.stopPropagation();
    moveEdge(place);
  });
  return edge;
}

function moveEdge(place) {
  view.edge = Math.min(Math.max(0, place), 1);
  draw();
}

function worldAt(canvas, event) {
  const { normal, rows, columns } = orientation();
  const box = canvas.getBoundingClientRect();
  const point = [];
  point[normal] = view.centre[normal];
  point[rows] = view.centre[rows] + (event.clientY - box.top - box.height / 2) * view.pixel;
  point[columns] = view.centre[columns] + (event.clientX - box.left - box.width / 2) * view.pixel;
  return point;
}

function listen(pane) {
  const { canvas } = pane;
  const fingers = new Map();
  let rolled = 0;
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    const way = event.deltaY * (event.deltaMode === 1 ? 40 : 1);
    if (event.ctrlKey || event.metaKey) {
      zoom(Math.exp(-Math.sign(way) * Math.min(Math.abs(way), 60) / 250), worldAt(canvas, event));
      return;
    }
    let steps = Math.sign(way) * Math.max(1, Math.round(Math.abs(way) / 120)); // a notch
    if (Math.abs(way) < WHEEL) { // a touchpad
      rolled = rolled * way < 0 ? way : rolled + way;
      steps = Math.trunc(rolled / WHEEL);
      rolled -= steps * WHEEL;
    }
    if (steps) goTo(slice() + steps);
  }, { passive: false });
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    fingers.set(event.pointerId, event);
  });
  const leave = (event) => fingers.delete(event.pointerId);
  canvas.addEventListener("pointerup", leave);
  canvas.addEventListener("pointercancel", leave);
  canvas.addEventListener("pointermove", (event) => {
    drag(canvas, fingers, event);
    point({ pane, at: worldAt(canvas, event) });
  });
  canvas.addEventListener("pointerleave", () => point(null));
  canvas.addEventListener("dblclick", (event) => zoom(2, worldAt(canvas, event)));
}

// One finger or the mouse moves, two fingers move and zoom.
function drag(canvas, fingers, event) {
  const before = fingers.get(event.pointerId);
  if (!before) return;
  const others = [...fingers.values()].filter((other) => other.pointerId !== event.pointerId);
  const part = 1 / (others.length + 1);
  move((before.clientY - event.clientY) * part, (before.clientX - event.clientX) * part);
  if (others.length === 1) {
    const far = (one) => Math.hypot(one.clientX - others[0].clientX, one.clientY - others[0].clientY);
    if (far(before) > 0) zoom(far(event) / far(before), worldAt(canvas, event));
  }
  fingers.set(event.pointerId, event);
}

// ---- drawing

let asked = false;

function draw() {
  main.dataset.idle = "false";
  if (asked) return;
  asked = true;
  requestAnimationFrame(() => {
    asked = false;
    if (panes.length) drawAll();
  });
}

function drawAll() {
  const requests = [];
  for (const pane of panes) {
    size(pane.canvas);
    for (const volume of pane.group.filter(has)) {
      const { first, wanted } = neededTiles(volume, view, orientation(), pane.canvas);
      requests.push({ first, wanted });
    }
  }
  const none = requests.map(({ first, wanted }) => (missing(wanted) === wanted.length ? first : []));
  tiles.want([...interleaved(none), ...interleaved(requests.map(({ wanted }) => wanted))]);
  for (const pane of panes) drawPane(pane);
  showControls();
  showReadout();
  const idle = !tiles.busy && requests.every(({ wanted }) => missing(wanted) === 0);
  if (idle) drawHistogram();
  main.dataset.idle = String(idle && contrast.knows(view));
}

function missing(requests) {
  return requests.filter((request) => !tiles.has(request.key)).length;
}

// The first of each list, then the second of each: no pane waits for another.
function interleaved(lists) {
  const longest = Math.max(0, ...lists.map((list) => list.length));
  const turns = Array.from({ length: longest }, (_, n) => lists.map((list) => list[n]));
  return turns.flat().filter(Boolean);
}

function size(canvas) {
  const width = Math.round(canvas.clientWidth * devicePixelRatio);
  const height = Math.round(canvas.clientHeight * devicePixelRatio);
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
}

function drawPane(pane) {
  const { canvas, group } = pane;
  const context = canvas.getContext("2d");
  const place = JSON.stringify([view.pixel, canvas.width, canvas.height, view.axis, view.edge,
    view.centre.filter((_, axis) => axis !== orientation().normal)]);
  const young = performance.now() - changedAt < PATIENCE_MS;
  if (young && place === pane.place && !complete(pane)) {
    setTimeout(draw, PATIENCE_MS);
    return; // the slice before stays for a moment
  }
  pane.place = place;
  context.clearRect(0, 0, canvas.width, canvas.height);
  let drawn = null;
  group.forEach((volume, n) => {
    context.save();
    if (n) clipToEdge(context);
    if (has(volume)) {
      const gray = contrast.of(volume, view);
      const result = drawVolume(context, volume, view, orientation(), tiles, gray);
      drawn = result;
    } else if (n) context.clearRect(0, 0, canvas.width, canvas.height);
    context.restore();
  });
  label(pane, drawn);
}

function complete(pane) {
  return pane.group.filter(has).every((volume) =>
    missing(neededTiles(volume, view, orientation(), pane.canvas).wanted) === 0);
}

function clipToEdge(context) {
  const { canvas } = context;
  const x = Math.round(canvas.width * view.edge);
  context.beginPath();
  context.rect(x, 0, canvas.width - x, canvas.height);
  context.clip();
  context.clearRect(x, 0, canvas.width - x, canvas.height);
}

function label(pane, drawn) {
  const { canvas, group } = pane;
  const names = group.map((volume) => volume.label).join(" and ");
  const missed = group.filter((volume) => !has(volume));
  pane.note.textContent = missed.length ? `${missed[0].label} has no channel ${view.c}` : "";
  const loading = drawn && drawn.there < drawn.wanted;
  const resolution = drawn?.level ? `level ${drawn.level}` : "full resolution";
  pane.level.textContent = drawn ? `${loading ? "loading " : ""}${resolution}` : "";
  canvas.dataset.level = drawn ? drawn.level : "";
  const name = `Plane ${orientation().label} of ${names}, slice ${slice()}`;
  if (canvas.getAttribute("aria-label") !== name) canvas.setAttribute("aria-label", name);
  const length = roundLength(canvas.clientWidth * 0.22 * view.pixel);
  const bar = element("i");
  bar.style.width = `${length / view.pixel}px`;
  pane.scale.replaceChildren(lengthText(length, reference.micrometres), bar);
  if (pane.edge) {
    pane.edge.style.left = `${view.edge * 100}%`;
    pane.edge.setAttribute("aria-valuenow", Math.round(view.edge * 100));
  }
}

// ---- the voxel under the pointer

let resting = 0;

function point(place) {
  pointer = place;
  exact = null;
  clearTimeout(resting);
  if (place) resting = setTimeout(readVoxel, REST_MS);
  showReadout();
}

async function readVoxel() {
  const place = pointer;
  const found = new Map();
  await Promise.all(shown().filter(has).map(async (volume) => {
    const known = value(volume, place.at);
    const url = voxelUrl(volume, place.at, view, orientation());
    if (known?.exact || !url) return;
    const answer = await fetch(url);
    if (!answer.ok) return;
    const data = new DataView(await answer.arrayBuffer());
    const read = { uint8: "getUint8", int8: "getInt8", uint16: "getUint16", int16: "getInt16",
      uint32: "getUint32", int32: "getInt32", float32: "getFloat32" }[volume.dtype];
    found.set(volume, data[read](0, true));
  }));
  if (pointer !== place) return;
  exact = found;
  showReadout();
}

function value(volume, at) {
  const { canvas } = panes.find((pane) => pane.group.includes(volume)) ?? panes[0];
  return valueAt(volume, at, view, orientation(), canvas, tiles);
}

function showReadout() {
  const at = pointer?.at ?? view.centre;
  const index = at.map((world, axis) => voxelAt(finest(), axis, world));
  const isInside = index.every((n, axis) => inside(finest(), axis, n));
  const parts = [];
  const text = isInside ? `z ${index[0]}, y ${index[1]}, x ${index[2]}` : "outside";
  parts.push(element("span", { className: "quiet" }, pointer ? "pointer" : "centre"));
  parts.push(element("span", { className: "position", textContent: text }));
  if (isInside && reference.micrometres) {
    const place = at.map((world) => world.toFixed(1)).join(", ");
    parts.push(element("span", { className: "quiet", textContent: `(${place}) µm` }));
  }
  for (const volume of isInside ? shown().filter(has) : []) {
    const known = value(volume, at);
    const read = exact?.get(volume);
    const sure = read !== undefined || known?.exact;
    const number = read ?? known?.value;
    const said = number === undefined ? "…" : `${sure ? "" : "≈ "}${format(number)}`;
    const data = element("b", { className: "value", textContent: said });
    data.dataset.volume = volume.name;
    parts.push(element("span", {}, `${volume.label} `, data));
  }
  $("readout").replaceChildren(...parts);
  showCrosses();
}

function showCrosses() {
  const { rows, columns } = orientation();
  for (const pane of panes) {
    const visible = pointer && pointer.pane !== pane;
    pane.cross.hidden = !visible;
    if (!visible) continue;
    const { canvas } = pane;
    const x = canvas.clientWidth / 2 + (pointer.at[columns] - view.centre[columns]) / view.pixel;
    const y = canvas.clientHeight / 2 + (pointer.at[rows] - view.centre[rows]) / view.pixel;
    Object.assign(pane.cross.style, { left: `${x}px`, top: `${y}px` });
  }
}

function format(number) {
  return Number.isInteger(number) ? String(number) : String(Number(number.toPrecision(5)));
}

// ---- controls

function fillControls() {
  $("title").textContent = reference.name;
  document.title = `${reference.name} · n2v-scale`;
  const several = volumes.length > 1;
  $("modes").hidden = !several;
  $("sharing").hidden = !several;
  fillChoices();
  const channels = volumes.reduce((a, b) => (b.channels.length > a.channels.length ? b : a)).channels;
  const times = Math.max(...volumes.map((volume) => volume.timepoints));
  $("channelrow").hidden = channels.length < 2;
  $("timerow").hidden = times < 2;
  $("dimensions").hidden = channels.length < 2 && times < 2;
  $("channel").append(...channels.map((name, n) => new Option(name, n)));
  $("time").max = times - 1;
  $("whose").append(...volumes.map((volume, n) => new Option(volume.label, n)));
  $("whose").value = volumes.indexOf(reference);
  $("about").append(...volumes.map(about));
  fillLinks();
}

function fillChoices() {
  $("which").hidden = volumes.length < 3;
  $("shown").append(...volumes.map((volume) => {
    const box = element("input", { type: "checkbox", checked: true });
    box.addEventListener("change", () => {
      if (shown().length === 1 && !box.checked) box.checked = true;
      volume.shown = box.checked;
      compare(view.mode);
    });
    return element("label", { className: "check" }, box, volume.label);
  }));
}

function about(volume) {
  const { shape, scale } = volume.levels[0];
  const stored = volume.levels.filter((level) => !level.made).length;
  const unit = volume.micrometres ? " µm" : "";
  const lines = [
    `${shape.join(" × ")} (z, y, x)`,
    `voxel ${scale.map((s) => Number(s.toPrecision(4))).join(" × ")}${unit}, ${volume.stored_dtype}`,
    `${volume.format}, ${stored} ${stored === 1 ? "level" : "levels"}`,
  ];
  return element("div", {}, element("dt", { textContent: volume.name }),
    ...lines.map((text) => element("dd", { textContent: text })));
}

function fillLinks() {
  const readable = volumes.filter((volume) => volume.data);
  $("others").hidden = !readable.length;
  const places = readable.map((volume) => new URL(volume.data, location.href).href);
  $("napari").value = `napari --plugin napari-ome-zarr ${places.join(" ")}`;
}

function showControls() {
  const { normal, label: plane } = orientation();
  const name = "ZYX"[normal];
  for (const button of $("orientations").children) {
    button.setAttribute("aria-pressed", String(button.dataset.axis === view.axis));
  }
  for (const button of $("modes").children) {
    button.setAttribute("aria-pressed", String(button.dataset.mode === view.mode));
  }
  const last = finest().shape[normal] - 1;
  $("slicename").textContent = name;
  Object.assign($("slice"), { max: last, value: slice() });
  $("slice").setAttribute("aria-valuetext", `${name} ${slice()} of ${last}, plane ${plane}`);
  $("slicenumber").max = last;
  if (document.activeElement !== $("slicenumber")) $("slicenumber").value = slice();
  const place = `${(finest().origin[normal] + slice() * finest().scale[normal]).toFixed(1)} µm`;
  $("sliceplace").textContent = `of ${last}${reference.micrometres ? ` · ${place}` : ""}`;
  $("time").value = view.t;
  $("timetext").textContent = view.t;
  showContrast();
}

function contrastOwner() {
  return contrast.shared ? contrast.reference : contrast.chosen;
}

function showContrast() {
  const { low, high } = contrast.of(contrastOwner(), view);
  const [first, last] = contrast.domain(view);
  const step = contrastOwner().dtype === "float32" ? (last - first) / 1000 : 1;
  for (const [id, now] of [["low", low], ["high", high]]) {
    Object.assign($(id), { min: first, max: last, step, value: now });
    $(id).setAttribute("aria-valuetext", format(now));
    if (document.activeElement !== $(`${id}number`)) $(`${id}number`).value = format(now);
  }
  $("whoserow").hidden = contrast.shared;
}

function setContrast(changes) {
  const owner = contrastOwner();
  const now = { ...contrast.of(owner, view), ...changes };
  if (!Number.isFinite(now.low) || !Number.isFinite(now.high)) return;
  if (changes.low !== undefined && now.low >= now.high) now.high = now.low;
  if (changes.high !== undefined && now.high <= now.low) now.low = now.high - 1e-6 - (owner.dtype !== "float32");
  contrast.change(owner, view, now);
  draw();
}

function drawHistogram() {
  const context = $("histogram").getContext("2d");
  const { width, height } = $("histogram");
  const style = getComputedStyle(document.documentElement);
  const domain = contrast.domain(view);
  context.clearRect(0, 0, width, height);
  for (const volume of shown().filter(has)) {
    const { canvas } = panes.find((pane) => pane.group.includes(volume)) ?? panes[0];
    const { wanted } = neededTiles(volume, view, orientation(), canvas);
    const bars = histogram(wanted.map(({ key }) => tiles.kept.get(key)).filter(Boolean), domain);
    if (!bars) continue;
    const own = volume === reference;
    context.beginPath();
    context.moveTo(0, height);
    bars.forEach((bar, n) => context.lineTo(((n + 0.5) / bars.length) * width, height - bar * (height - 4)));
    context.lineTo(width, height);
    const colour = style.getPropertyValue(own ? "--accent" : "--noisy");
    Object.assign(context, { fillStyle: colour, strokeStyle: colour, lineWidth: 2 });
    context.globalAlpha = own ? 0.35 : 0.25;
    context.fill();
    context.globalAlpha = 1;
    context.stroke();
  }
  const { low, high } = contrast.of(contrastOwner(), view);
  context.fillStyle = style.getPropertyValue("--text");
  for (const edge of [low, high]) {
    context.fillRect(((edge - domain[0]) / (domain[1] - domain[0])) * width - 1, 0, 2, height);
  }
}

function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
  if (panes.length) draw();
}

function prefersDark() {
  return matchMedia("(prefers-color-scheme: dark)").matches;
}

function kept(theme) {
  try {
    if (theme) localStorage.setItem("theme", theme);
    return localStorage.getItem("theme");
  } catch {
    return null; // a browser that keeps nothing
  }
}

setTheme(kept() ?? (prefersDark() ? "dark" : "light"));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  if (!kept()) setTheme(prefersDark() ? "dark" : "light");
});

const toggleTheme = () => {
  const theme = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
  kept(theme);
  setTheme(theme);
};
const autoContrast = () => {
  for (const volume of volumes) contrast.change(volume, view, contrast.auto(contrast.owner(volume, view), view));
  draw();
};
const invert = (on) => {
  contrast.inverted = on;
  $("invert").checked = on;
  draw();
};
const oneToOne = () => {
  const { rows, columns } = orientation();
  view.pixel = Math.min(finest().scale[rows], finest().scale[columns]) * devicePixelRatio;
  view.fitted = false;
  draw();
};
const pan = (down, right) => move(down * 60, right * 60);

const KEYS = {
  ",": () => goTo(slice() - 1), ".": () => goTo(slice() + 1),
  PageUp: () => goTo(slice() - 1), PageDown: () => goTo(slice() + 1),
  Home: () => goTo(0), End: () => goTo(Infinity),
  "+": () => zoom(1.25), "=": () => zoom(1.25), "-": () => zoom(0.8), "−": () => zoom(0.8),
  0: fit, 1: oneToOne,
  ArrowUp: () => pan(-1, 0), ArrowDown: () => pan(1, 0),
  ArrowLeft: () => pan(0, -1), ArrowRight: () => pan(0, 1),
  z: () => turn("z"), y: () => turn("y"), x: () => turn("x"),
  s: () => compare(view.mode === "side" ? "swipe" : "side"),
  "[": () => moveEdge(view.edge - 0.05), "]": () => moveEdge(view.edge + 0.05),
  a: autoContrast, i: () => invert(!contrast.inverted), d: toggleTheme,
  "?": () => $("keys").showModal(),
};

document.addEventListener("keydown", (event) => {
  const typing = event.target.closest("input, select, textarea, dialog");
  const onSlider = event.target.matches("input[type=range], input[type=checkbox]");
  const action = KEYS[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  if (!action || !contrast || event.ctrlKey || event.metaKey || event.altKey) return;
  if (typing && !(onSlider && event.key.length === 1)) return;
  event.preventDefault();
  action();
});

for (const button of $("orientations").children) {
  button.addEventListener("click", () => turn(button.dataset.axis));
}
for (const button of $("modes").children) {
  button.addEventListener("click", () => compare(button.dataset.mode));
}
const closeMenu = () => $("others").removeAttribute("open");
document.addEventListener("pointerdown", (event) => {
  if (!$("others").contains(event.target)) closeMenu();
});
$("others").addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  closeMenu();
  $("others").firstElementChild.focus();
});
const clicks = {
  in: () => zoom(1.5), out: () => zoom(1 / 1.5), fit, whole: oneToOne, theme: toggleTheme,
  help: () => $("keys").showModal(), auto: autoContrast,
  previous: () => goTo(slice() - 1), next: () => goTo(slice() + 1),
  copy: () => navigator.clipboard?.writeText($("napari").value).then(() => {
    $("copy").textContent = "Copied";
  }),
};
for (const [id, action] of Object.entries(clicks)) $(id).addEventListener("click", action);
$("slice").addEventListener("input", () => goTo($("slice").valueAsNumber));
$("slicenumber").addEventListener("change", () => goTo($("slicenumber").valueAsNumber));
$("low").addEventListener("input", () => setContrast({ low: $("low").valueAsNumber }));
$("high").addEventListener("input", () => setContrast({ high: $("high").valueAsNumber }));
$("lownumber").addEventListener("change", () => setContrast({ low: $("lownumber").valueAsNumber }));
$("highnumber").addEventListener("change", () => setContrast({ high: $("highnumber").valueAsNumber }));
$("invert").addEventListener("change", () => invert($("invert").checked));
$("shared").addEventListener("change", () => {
  contrast.shared = $("shared").checked;
  draw();
});
$("whose").addEventListener("change", () => {
  contrast.chosen = volumes[Number($("whose").value)];
  draw();
});
$("channel").addEventListener("change", () => choose({ c: Number($("channel").value) }));
$("time").addEventListener("input", () => choose({ t: $("time").valueAsNumber }));
$("alert").querySelector("button").addEventListener("click", () => {
  $("alert").hidden = true;
  tiles.retry();
});

// For scripts and tests: where a voxel of the reference is on a pane, in the canvas's own pixels.
window.n2vView = {
  view,
  pixelOf(paneNumber, z, y, x) {
    const { canvas } = panes[paneNumber];
    const frame = frameOf(canvas, view, orientation());
    const world = [z, y, x].map((n, axis) => finest().origin[axis] + n * finest().scale[axis]);
    return [
      (world[orientation().columns] - frame.left) / frame.pixel,
      (world[orientation().rows] - frame.top) / frame.pixel,
    ];
  },
  levelOf: (number) => levelFor(volumes[number], orientation(), view.pixel / devicePixelRatio),
};
