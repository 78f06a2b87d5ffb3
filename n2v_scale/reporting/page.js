"use strict";
(() => {
  const root = document.documentElement;
  const theme = document.getElementById("theme");
  const dark = () => root.dataset.theme
    ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  theme.addEventListener("click", () => { root.dataset.theme = dark() ? "light" : "dark"; });

  const data = JSON.parse(document.getElementById("slices-data").textContent);
  if (!data.places.length) return;
  const $ = (id) => document.getElementById(id);
  const box = $("planes"), GAP = 4, NEAR = 9, MOST_ZOOM = 32, LEVELS = 4095, NO_VALUE = 4095, VIOLET = [86, 52, 110], LABEL = "#ffffff";
  // Which axis (0 z, 1 y, 2 x) lies across and down in each plane, and which one it cuts.
  const PLANES = {
    xy: { across: 2, down: 1, cuts: 0 }, yz: { across: 0, down: 1, cuts: 2 }, xz: { across: 2, down: 0, cuts: 1 },
  };
  const differences = { residual: ["noisy", "denoised"] };
  if (data.volumes.includes("reference")) differences.error = ["denoised", "reference"];
  const names = { ...Object.fromEntries(data.volumes.map((v) => [v, v])),
    residual: "residual (noisy − denoised)", error: "error (denoised − reference)" };
  const sources = [...data.volumes, ...Object.keys(differences)];
  const view = { place: 0, zoom: 1, centre: [0, 0, 0], split: 0.5, left: "noisy", right: "denoised" };
  const loaded = new Map(), painted = new Map(), canvases = {};
  let wanted = 0, ready = false;

  async function decoded(text) {
    const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    const parts = new Uint8Array(await new Response(stream).arrayBuffer());
    const size = parts.length / 2, codes = new Uint16Array(size);
    for (let i = 0; i < size; i++) codes[i] = parts[i] | (parts[size + i] << 8);
    return codes;
  }

  async function load(number) {
    if (loaded.has(number)) return;
    const found = {};
    for (const [name, planes] of Object.entries(data.places[number].data)) {
      found[name] = {};
      for (const plane of Object.keys(PLANES)) found[name][plane] = await decoded(planes[plane]);
    }
    loaded.set(number, found);
  }

  const place = () => data.places[view.place];
  const scale = () => data.scales[place().c];
  const size = (axis) => place().shape[axis] * data.voxel[axis];

  // The gray of each code, or of each difference of two codes.
  function shades(source) {
    const table = new Uint8ClampedArray(2 * LEVELS);
    const gamma = $("gamma").value / 100;
    if (source in differences) {
      const most = widest(source);
      for (let i = 0; i < table.length; i++) table[i] = 127.5 + 127.5 * (i - LEVELS) / most;
    } else {
      const low = +$("dark").value, high = Math.max(low + 1, +$("bright").value);
      for (let i = 0; i < LEVELS; i++) {
        table[i] = 255 * Math.pow(Math.min(1, Math.max(0, (i - low) / (high - low))), gamma);
      }
    }
    return table;
  }

  // The difference, in codes, that is white: three standard deviations.
  function widest(source) {
    const [a, b] = differences[source], planes = loaded.get(view.place);
    let total = 0, count = 0;
    for (let i = 0; i < planes[a].xy.length; i++) {
      if (planes[a].xy[i] === NO_VALUE || planes[b].xy[i] === NO_VALUE) continue;
      total += (planes[a].xy[i] - planes[b].xy[i]) ** 2; count++;
    }
    return 3 * Math.max(1, Math.sqrt(total / Math.max(1, count)));
  }

  // -1 where there is no value.
  function codeAt(source, plane, i) {
    const planes = loaded.get(view.place);
    if (!(source in differences)) {
      const code = planes[source][plane][i];
      return code === NO_VALUE ? -1 : code;
    }
    const [a, b] = differences[source].map((name) => planes[name][plane][i]);
    return a === NO_VALUE || b === NO_VALUE ? -1 : a - b + LEVELS;
  }

  // The slice in gray at its own resolution. yz is stored (z, y) and shown with z across.
  function paint(source, plane) {
    const key = `${view.place} ${source} ${plane}`;
    if (painted.has(key)) return painted.get(key);
    const { across, down } = PLANES[plane], shape = place().shape;
    const wide = shape[across], high = shape[down], table = shades(source);
    const canvas = document.createElement("canvas");
    canvas.width = wide; canvas.height = high;
    const image = new ImageData(wide, high);
    for (let j = 0; j < high; j++) {
      for (let i = 0; i < wide; i++) {
        const code = codeAt(source, plane, plane === "yz" ? i * high + j : j * wide + i);
        const at = 4 * (j * wide + i);
        for (let k = 0; k < 3; k++) image.data[at + k] = code < 0 ? VIOLET[k] : table[code];
        image.data[at + 3] = 255;
      }
    }
    canvas.getContext("2d").putImageData(image, 0, 0);
    painted.set(key, canvas);
    return canvas;
  }

  function layout() {
    const flat = place().shape[0] === 1, which = flat ? "xy" : $("which").value;
    const one = PLANES[which], room = box.parentElement.clientWidth - 3 * GAP;
    const wide = one ? size(one.across) : size(2) + size(0), high = one ? size(one.down) : size(1) + size(0);
    view.scale = Math.min(room / wide, Math.max(420, (one ? 0.8 : 1) * innerHeight) / high);
    box.style.gridTemplateColumns = one ? "auto" : "auto auto";
    for (const [name, { across, down }] of Object.entries(PLANES)) {
      const canvas = canvases[name], ratio = devicePixelRatio || 1;
      canvas.hidden = Boolean(one) && name !== which;
      const w = Math.max(8, Math.round(size(across) * view.scale)), h = Math.max(8, Math.round(size(down) * view.scale));
      canvas.style.width = `${w}px`; canvas.style.height = `${h}px`;
      canvas.width = Math.round(w * ratio); canvas.height = Math.round(h * ratio);
    }
  }

  function clamp() {
    view.zoom = Math.min(MOST_ZOOM, Math.max(1, view.zoom));
    for (const axis of [0, 1, 2]) {
      const half = size(axis) / 2 / view.zoom;
      view.centre[axis] = Math.min(size(axis) - half, Math.max(half, view.centre[axis]));
    }
  }

  function draw() {
    if (!ready) return;
    clamp();
    for (const [name, plane] of Object.entries(PLANES)) if (!canvases[name].hidden) drawPlane(name, plane);
    $("zoom").textContent = `${Math.round(100 * view.zoom)}%`;
    $("split").value = Math.round(1000 * view.split);
    $("split").setAttribute("aria-valuetext", `${Math.round(100 * view.split)}% ${names[view.left]}`);
    box.style.touchAction = view.zoom > 1 ? "none" : "pan-y";
    box.dataset.zoom = view.zoom; box.dataset.split = view.split; box.dataset.place = view.place;
  }

  function drawPlane(name, { across, down, cuts }) {
    const canvas = canvases[name], pen = canvas.getContext("2d");
    const W = canvas.width, H = canvas.height, line = view.split * W;
    const perX = W / size(across) * view.zoom, perY = H / size(down) * view.zoom;
    const x0 = W / 2 - view.centre[across] * perX, y0 = H / 2 - view.centre[down] * perY;
    pen.imageSmoothingEnabled = false;
    pen.clearRect(0, 0, W, H);
    for (const [source, from, to] of [[view.left, 0, line], [view.right, line, W]]) {
      pen.save();
      pen.beginPath(); pen.rect(from, 0, to - from, H); pen.clip();
      pen.drawImage(paint(source, name), x0, y0, size(across) * perX, size(down) * perY);
      pen.restore();
    }
    const ratio = devicePixelRatio || 1;
    pen.fillStyle = LABEL; pen.fillRect(line - ratio / 2, 0, ratio, H);
    pen.fillStyle = "#ffb224";
    const at = (axis) => (place().centre[axis] - place().start[axis] + 0.5) * data.voxel[axis];
    for (const [axis, first, per] of [[across, x0, perX], [down, y0, perY]]) {
      if (axis === cuts || place().shape[0] === 1) continue;
      const p = first + at(axis) * per, s = 5 * ratio;
      pen.beginPath();
      if (axis === across) { pen.moveTo(p - s, 0); pen.lineTo(p + s, 0); pen.lineTo(p, 1.5 * s); }
      else { pen.moveTo(0, p - s); pen.lineTo(0, p + s); pen.lineTo(1.5 * s, p); }
      pen.fill();
    }
    if (name === "xy" || $("which").value !== "all") {
      labels(pen, W, line, ratio); scaleBar(pen, W, H, perX, ratio);
    }
    pen.font = `600 ${11 * ratio}px system-ui, sans-serif`;
    pen.textAlign = "left"; pen.textBaseline = "bottom";
    outlined(pen, name.toUpperCase(), 8 * ratio, H - 8 * ratio, ratio);
  }

  function outlined(pen, text, x, y, ratio) {
    pen.lineWidth = 3 * ratio; pen.strokeStyle = "rgba(0,0,0,.75)"; pen.lineJoin = "round";
    pen.strokeText(text, x, y); pen.fillStyle = LABEL; pen.fillText(text, x, y);
  }

  function labels(pen, W, line, ratio) {
    pen.font = `600 ${13 * ratio}px system-ui, sans-serif`;
    pen.textBaseline = "top";
    pen.textAlign = "right"; if (line > 90 * ratio) outlined(pen, view.left, line - 8 * ratio, 8 * ratio, ratio);
    pen.textAlign = "left"; if (W - line > 90 * ratio) outlined(pen, view.right, line + 8 * ratio, 8 * ratio, ratio);
  }

  function scaleBar(pen, W, H, perX, ratio) {
    const unit = data.unit || "voxels";
    if (!data.unit) perX *= data.voxel[2];
    const target = W / 5 / perX, power = 10 ** Math.floor(Math.log10(target));
    const length = [5, 2, 1].map((f) => f * power).find((v) => v <= target) || power;
    const wide = length * perX, x = W - wide - 12 * ratio, y = H - 14 * ratio;
    pen.fillStyle = "rgba(0,0,0,.6)"; pen.fillRect(x - ratio, y - ratio, wide + 2 * ratio, 6 * ratio);
    pen.fillStyle = LABEL; pen.fillRect(x, y, wide, 4 * ratio);
    pen.font = `${12 * ratio}px system-ui, sans-serif`; pen.textAlign = "right"; pen.textBaseline = "bottom";
    outlined(pen, `${+length.toPrecision(3)} ${unit}`, W - 12 * ratio, y - 2 * ratio, ratio);
  }

  const redraw = () => requestAnimationFrame(draw);
  const repaint = () => { painted.clear(); say(); redraw(); };

  async function show(number) {
    const count = data.places.length, channel = ready ? place().c : null;
    const next = (number + count) % count;
    wanted = next;
    try { await load(next); } catch (error) { fail(); return; }
    if (wanted !== next) return;  // another was asked for meanwhile
    view.place = next; ready = true;
    $("place").value = next;
    if (place().c !== channel) contrast();
    fit(); layout(); redraw(); describe();
  }

  function fail() {
    $("viewer").hidden = true;
    $("too-old").hidden = false;
  }

  function fit() { view.zoom = 1; view.centre = [0, 1, 2].map((axis) => size(axis) / 2); }

  // Sliders reach from the lowest code as far as the contrast is likely to be wanted.
  function contrast() {
    const [low, step, black, white] = scale(), bright = (white - low) / step;
    $("dark").max = Math.min(LEVELS - 1, Math.max(2, Math.ceil(bright)));
    $("bright").max = Math.min(LEVELS - 1, Math.max(2, Math.ceil(2.5 * bright)));
    $("dark").value = (black - low) / step; $("bright").value = bright; $("gamma").value = 100;
    painted.clear(); say();
  }

  const valueOf = (code) => { const [low, step] = scale(); return +(low + step * code).toPrecision(4); };

  function say() {
    for (const id of ["dark", "bright"]) {
      $(`${id}-value`).textContent = valueOf(+$(id).value);
      $(id).setAttribute("aria-valuetext", valueOf(+$(id).value));
    }
    $("gamma-value").textContent = ($("gamma").value / 100).toFixed(2);
    $("gamma").setAttribute("aria-valuetext", $("gamma-value").textContent);
  }

  function describe() {
    const { centre, t, c, why } = place();
    const where = `z ${centre[0]}, y ${centre[1]}, x ${centre[2]}`;
    const both = new Set([view.left, view.right]), sides = [...both].filter((side) => side in differences);
    const ranges = sides.map((side) => ` In the ${side}, black is −${spanOf(side)} and white is +${spanOf(side)}.`);
    $("status").textContent = `Time point ${t}, channel ${c}, planes through ${where} (${why}).${ranges.join("")}`;
    for (const [name, canvas] of Object.entries(canvases)) {
      canvas.setAttribute("aria-label", `${name.toUpperCase()} plane through ${where}: ${names[view.left]} left of the line, ${names[view.right]} right of it`);
    }
  }

  const spanOf = (side) => +(widest(side) * scale()[1]).toPrecision(3);

  function zoomTo(factor, canvas, event) {
    const before = view.zoom;
    view.zoom = Math.min(MOST_ZOOM, Math.max(1, view.zoom * factor));
    if (canvas && event) {
      const [p, { across, down }] = [pointed(canvas, event, before), PLANES[canvas.dataset.plane]];
      view.centre[across] = p[0] - (p[0] - view.centre[across]) * before / view.zoom;
      view.centre[down] = p[1] - (p[1] - view.centre[down]) * before / view.zoom;
    }
    redraw();
  }

  // Where the pointer is, in the unit of the voxel size, from the corner of what is shown.
  function pointed(canvas, event, zoom = view.zoom) {
    const r = canvas.getBoundingClientRect(), { across, down } = PLANES[canvas.dataset.plane];
    return [
      view.centre[across] + ((event.clientX - r.left) / r.width - 0.5) * size(across) / zoom,
      view.centre[down] + ((event.clientY - r.top) / r.height - 0.5) * size(down) / zoom,
    ];
  }

  function tell(canvas, event) {
    if (!ready) return;
    const name = canvas.dataset.plane, { across, down, cuts } = PLANES[name];
    const p = pointed(canvas, event), voxel = [...place().centre], index = [0, 0, 0];
    for (const [axis, value] of [[across, p[0]], [down, p[1]]]) {
      index[axis] = Math.min(place().shape[axis] - 1, Math.max(0, Math.floor(value / data.voxel[axis])));
      voxel[axis] = index[axis] + place().start[axis];
    }
    voxel[cuts] = place().centre[cuts];
    const shape = place().shape;
    const i = name === "yz" ? index[0] * shape[1] + index[1] : index[down] * shape[across] + index[across];
    const values = data.volumes.map((v) => `${v} ${told(loaded.get(view.place)[v][name][i])}`);
    $("status").textContent = `z ${voxel[0]}, y ${voxel[1]}, x ${voxel[2]}: ${values.join(", ")}`;
  }

  // A value for people; at the ends of the codes others may lie beyond, unless they hold all values.
  function told(code) {
    if (code === NO_VALUE) return "unknown";
    const [low, step] = scale(), value = +(low + step * code).toPrecision(5);
    if (data.scales[place().c][4] || (code > 0 && code < LEVELS - 1)) return `${value}`;
    return `${code ? "≥" : "≤"} ${value}`;
  }

  function listen(canvas) {
    let held = null;
    const onLine = (e) => {
      const r = canvas.getBoundingClientRect();
      return Math.abs(e.clientX - r.left - view.split * r.width) < NEAR;
    };
    canvas.addEventListener("pointerdown", (e) => {
      if (!ready) return;
      held = { line: onLine(e), at: pointed(canvas, e) };
      canvas.setPointerCapture(e.pointerId);
    });
    canvas.addEventListener("pointermove", (e) => {
      if (!ready) return;
      canvas.classList.toggle("split", held ? held.line : onLine(e));
      if (!held) { tell(canvas, e); return; }
      const r = canvas.getBoundingClientRect(), { across, down } = PLANES[canvas.dataset.plane];
      if (held.line) view.split = Math.min(1, Math.max(0, (e.clientX - r.left) / r.width));
      else {
        const now = pointed(canvas, e);
        view.centre[across] += held.at[0] - now[0]; view.centre[down] += held.at[1] - now[1];
        clamp();
      }
      redraw();
    });
    for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, () => { held = null; });
    canvas.addEventListener("wheel", (e) => {
      if (!ready || (view.zoom === 1 && e.deltaY > 0)) return;  // then the page scrolls
      e.preventDefault(); zoomTo(2 ** (-e.deltaY / 300), canvas, e);
    }, { passive: false });
  }

  const STEP = 0.08;
  const shownPlane = () => PLANES[$("which").value] || PLANES.xy;
  const move = (way, sign) => {
    const axis = shownPlane()[way]; view.centre[axis] += sign * STEP * size(axis) / view.zoom; redraw(); };
  const cut = (by) => { view.split = Math.min(1, Math.max(0, view.split + by)); redraw(); };
  const KEYS = {
    ArrowLeft: () => move("across", -1), ArrowRight: () => move("across", 1), ArrowUp: () => move("down", -1), ArrowDown: () => move("down", 1),
    "+": () => zoomTo(1.25), "=": () => zoomTo(1.25), "-": () => zoomTo(0.8), 0: () => { fit(); redraw(); },
    "[": () => cut(-0.05), "]": () => cut(0.05), n: () => show(wanted + 1),
  };
  box.addEventListener("keydown", (e) => {
    if (!ready || e.ctrlKey || e.metaKey || e.altKey || !(e.key in KEYS)) return;
    e.preventDefault(); KEYS[e.key]();
  });

  function options(select, entries) {
    for (const [value, text] of entries) select.add(new Option(text, value));
  }
  const several = (of) => new Set(data.places.map(of)).size > 1;
  const inTime = several((p) => p.t), inColour = several((p) => p.c);
  const numbered = data.places.map((p, i) => {
    const how = p.why === "drawn at random" ? "at random" : "most contrast";
    return [i, `${i + 1}: ${how}${inColour ? `, channel ${p.c}` : ""}${inTime ? `, time point ${p.t}` : ""}`];
  });
  options($("place"), numbered);
  for (const side of ["left", "right"]) {
    options($(side), sources.map((s) => [s, names[s]]));
    $(side).value = view[side];
    $(side).addEventListener("change", (e) => { view[side] = e.target.value; describe(); redraw(); });
  }
  $("which").addEventListener("change", () => { if (ready) { layout(); redraw(); } });
  $("place").addEventListener("change", (e) => show(+e.target.value));
  $("split").addEventListener("input", (e) => { view.split = e.target.value / 1000; redraw(); });
  for (const id of ["dark", "bright", "gamma"]) $(id).addEventListener("input", repaint);
  $("auto").addEventListener("click", () => { contrast(); redraw(); });
  $("in").addEventListener("click", () => zoomTo(1.5));
  $("out").addEventListener("click", () => zoomTo(1 / 1.5));
  $("fit").addEventListener("click", () => { fit(); redraw(); });
  for (const name of Object.keys(PLANES)) {
    const canvas = document.createElement("canvas");
    canvas.dataset.plane = name; canvas.setAttribute("role", "img");
    canvases[name] = canvas; box.append(canvas); listen(canvas);
  }
  if (innerWidth < 640) $("which").value = "xy";
  $("viewer").hidden = false;
  addEventListener("resize", () => { if (ready) { layout(); redraw(); } });
  show(0);
})();
