"use strict";
// Draws the plan in the page three times (graph, memory, table) and keeps the three on the same step.
// All text is set as text, never as markup: names come from files.

const plan = JSON.parse(document.getElementById("plan").textContent);
const steps = plan.steps;
const storages = [...plan.storages].sort((a, b) => b.bytes - a.bytes || a.first - b.first);
const PHASES = ["forward", "recompute", "reverse", "exchange", "update"];
const CATEGORIES = [
  ["parameters", "parameters, states"],
  ["inputs", "inputs, targets"],
  ["kept", "kept for the reverse pass"],
  ["passing", "passing"],
  ["gradients", "gradients"],
];

// -- words and numbers ------------------------------------------------------------------------------

function scaled(count, base, units) {
  let size = count, unit = 0;
  while (size >= base && unit < units.length - 1) { size /= base; unit += 1; }
  return (unit && size < 100 ? size.toFixed(1) : Math.round(size)) + units[unit];
}
const bytes = (count) => scaled(count, 1024, [" B", " KiB", " MiB", " GiB"]);
const narrow = (count) => (count ? scaled(count, 1024, ["", "K", "M", "G"]) : "–");
const flops = (count) => (count ? scaled(count, 1000, ["", " K", " M", " G", " T"]) : "–");
function seconds(s) {
  if (s === undefined) return "–";
  if (s < 1e-3) return (s * 1e6).toFixed(s < 1e-5 ? 1 : 0) + " µs";
  return s < 1 ? (s * 1e3).toFixed(2) + " ms" : s.toFixed(2) + " s";
}
function elide(text, width) {
  if (text.length <= width) return text;
  const left = Math.floor((width - 1) / 2);
  return text.slice(0, left) + "…" + text.slice(text.length - (width - 1 - left));
}
const shortName = (value, step) =>
  value.startsWith(step.node + ".") ? value.slice(step.node.length) : value;
function does(step) {
  if (step.phase === "recompute") return step.title + " again";
  const plain = step.kind === "layer" || step.kind === "loss" || step.kind === step.title;
  return plain ? step.title : `${step.title} ${step.kind}`;
}
function layout(value) {
  if (value.layout) return [...value.layout].reverse().map((b) => b.join("x")).join(" ") || "NHWC";
  return value.shape.length === 4 ? "NCHW" : "–";
}
const dtype = (name) => name.replace("bfloat", "bf").replace("float", "f").replace("int", "i");
const shape = (value) => `${value.shape.join("x") || "scalar"} ${dtype(value.dtype)}`;
const over = (step, value) =>
  value.name in step.writes ? ` over ${shortName(step.writes[value.name], step)}` : "";
function makes(step) {
  if (step.kind === "update") return "writes " + Object.values(step.writes).map((slot) => shortName(slot, step)).join(" ");
  return step.makes.map((value) => shape(value) + over(step, value)).join(", ") || "–";
}

// -- elements ---------------------------------------------------------------------------------------

function put(parent, name, attributes = {}, text = undefined) {
  const svg = parent.namespaceURI && parent.namespaceURI.endsWith("svg") && name !== "svg" || name === "svg";
  const element = svg ? document.createElementNS("http://www.w3.org/2000/svg", name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== undefined) element.textContent = text;
  parent.appendChild(element);
  return element;
}
const byId = (id) => document.getElementById(id);
function legend(list, entries) {
  for (const [name, text] of entries) put(list, "li", { style: `--colour: var(--${name})` }, text);
}
function stepLink(parent, number) {
  const link = put(parent, "a", { href: `#step-${number}` }, String(number));
  link.addEventListener("click", (event) => { event.preventDefault(); event.stopPropagation(); choose(number); });
}

// -- who reads and makes what -----------------------------------------------------------------------

const producer = new Map();
steps.forEach((step, i) => step.makes.forEach((value) => producer.set(value.name, i)));
const before = steps.map((step, i) => [
  ...new Set(step.reads.map((name) => producer.get(name)).filter((j) => j !== undefined && j !== i)),
]);
const after = steps.map(() => []);
before.forEach((sources, i) => sources.forEach((j) => after[j].push(i)));

function category(storage) {
  if (storage.first < 0) return storage.kind === "input" ? "inputs" : "parameters";
  if (steps[storage.first].phase === "reverse" || steps[storage.first].phase === "update") return "gradients";
  return storage.kept_for.length ? "kept" : "passing";
}
const alive = (i) => storages.filter((one) => one.first <= i && i <= one.last);

// -- graph: forward down the left, reverse up the right, each step beside its forward ------------------

const BOX = { w: 142, h: 30, dx: 154, dy: 46, margin: 40, gap: 46, top: 34 };
const SIDE = { w: 94, dx: 104 }; // sums of gradients stand beside the chain
const PILL = { w: 92, h: 14, dx: 100 }; // updates are small, two to a row

function place() {
  const rows = new Array(steps.length).fill(0);
  const forward = steps.map((s, i) => i).filter((i) => steps[i].phase === "forward");
  for (const i of forward) {
    rows[i] = Math.max(0, ...before[i].filter((j) => steps[j].phase === "forward").map((j) => rows[j] + 1));
  }
  for (const i of forward) { // what depends on no step stands just before its first reader
    const readers = after[i].filter((j) => steps[j].phase === "forward");
    if (!before[i].length && readers.length) rows[i] = Math.max(0, Math.min(...readers.map((j) => rows[j])) - 1);
  }
  const home = new Map();
  for (const i of forward) if (steps[i].kind !== "key") home.set(steps[i].node, rows[i]);
  steps.forEach((step, i) => {
    if (step.phase === "forward") return;
    const near = before[i].filter((j) => j < i);
    rows[i] = home.has(step.node) ? home.get(step.node) : near.length ? rows[near[near.length - 1]] : 0;
  });
  const taken = new Map(), columns = new Array(steps.length).fill(0), widths = {};
  steps.forEach((step, i) => {
    const key = `${step.phase} ${rows[i]}`;
    const used = taken.get(key) || taken.set(key, new Set()).get(key);
    if (step.phase === "update") {
      columns[i] = used.size;
      used.add(i);
      widths.update = Math.max(widths.update || 0, Math.ceil(used.size / 2));
      return;
    }
    const main = before[i].find((j) => steps[j].phase === step.phase);
    let column = step.phase === "forward" && main !== undefined ? columns[main] : 0;
    if (step.phase === "reverse" && step.kind !== "backward") column = 1; // sums stand beside the chain
    while (used.has(column)) column += 1;
    used.add(column);
    columns[i] = column;
    widths[step.phase] = Math.max(widths[step.phase] || 0, column + 1);
  });
  const left = {};
  let x = BOX.margin;
  for (const phase of PHASES) {
    if (!widths[phase]) continue;
    left[phase] = x;
    const { w, dx } = phase === "update" ? PILL : phase === "reverse" ? SIDE : BOX;
    const first = phase === "reverse" ? BOX.w : w;
    x += first + (widths[phase] - 1) * dx + BOX.gap;
  }
  const at = steps.map((step, i) => {
    const row = rows[i], column = columns[i], y = BOX.top + row * BOX.dy;
    if (step.phase === "reverse" && column > 0) {
      return { x: left.reverse + BOX.dx + (column - 1) * SIDE.dx, y, row, w: SIDE.w, h: BOX.h };
    }
    if (step.phase !== "update") return { x: left[step.phase] + column * BOX.dx, y, row, w: BOX.w, h: BOX.h };
    const x = left.update + Math.floor(column / 2) * PILL.dx;
    return { x, y: y + (column % 2) * (PILL.h + 2), row, w: PILL.w, h: PILL.h };
  });
  const height = BOX.top + (Math.max(0, ...rows) + 1) * BOX.dy;
  return { at, left, width: x - BOX.gap + 12, height };
}

function edgePath(a, b, sameLane) {
  if (!sameLane) { // from the side of one lane to the side of another
    const right = a.x < b.x;
    const x1 = right ? a.x + a.w : a.x, x2 = right ? b.x : b.x + b.w;
    const y1 = a.y + a.h / 2, y2 = b.y + b.h / 2, bend = Math.max(20, Math.abs(x2 - x1) / 2);
    return `M${x1} ${y1}C${x1 + (right ? bend : -bend)} ${y1} ${x2 - (right ? bend : -bend)} ${y2} ${x2} ${y2}`;
  }
  if (a.row === b.row) { // beside each other
    const right = a.x < b.x, y = a.y + a.h / 2;
    return `M${right ? a.x + a.w : a.x} ${y}L${right ? b.x : b.x + b.w} ${y}`;
  }
  const down = a.row < b.row, span = Math.abs(a.row - b.row);
  if (span > 1 && a.x === b.x) { // around what stands between them
    const y1 = a.y + BOX.h / 2, y2 = b.y + BOX.h / 2, out = a.x - Math.min(BOX.margin - 8, 16 + 6 * span);
    return `M${a.x} ${y1}C${out} ${y1} ${out} ${y2} ${b.x} ${y2}`;
  }
  if (span > 1) { // along the free column: leave by the side, or come in by it
    const out = a.x < b.x, from = out ? a : b, to = out ? b : a;
    const y = from.y + from.h / 2, x = to.x + to.w / 2, end = from.y > to.y ? to.y + to.h : to.y;
    const half = `${from.x + from.w} ${y}`, bend = `${x} ${y} ${x} ${y}`;
    return out ? `M${half}C${bend} ${x} ${end}` : `M${x} ${end}C${bend} ${half}`;
  }
  const x1 = a.x + a.w / 2, x2 = b.x + b.w / 2, y1 = down ? a.y + BOX.h : a.y, y2 = down ? b.y : b.y + BOX.h;
  const middle = (y1 + y2) / 2;
  return `M${x1} ${y1}C${x1} ${middle} ${x2} ${middle} ${x2} ${y2}`;
}

const nodes = [], edges = steps.map(() => []);

function drawGraph() {
  const { at, left, width, height } = place();
  const svg = put(byId("graph-scroll"), "svg", { width, height, role: "img", "aria-label": "graph" });
  const marker = put(put(svg, "defs"), "marker", {
    id: "arrow", viewBox: "0 0 8 8", refX: 7, refY: 4, markerWidth: 7, markerHeight: 7, markerUnits: "userSpaceOnUse", orient: "auto",
  });
  put(marker, "path", { d: "M0 0L8 4L0 8z" });
  const names = { forward: "forward ↓", recompute: "recompute", reverse: "reverse ↑", exchange: "exchange", update: "update" };
  for (const phase of Object.keys(left)) put(svg, "text", { class: "lane", x: left[phase], y: 20 }, names[phase]);
  const lines = put(svg, "g");
  before.forEach((sources, i) => sources.forEach((j) => {
    const same = steps[i].phase === steps[j].phase;
    const kept = !same && steps[j].phase === "forward" && steps[i].phase !== "update" && steps[j].kind !== "loss";
    const line = put(lines, "path", {
      class: kept ? "edge kept" : "edge", d: edgePath(at[j], at[i], same), "marker-end": "url(#arrow)",
    });
    edges[i].push(line);
    edges[j].push(line);
  }));
  const time = (step) => (step.measured_s === undefined ? step.at_least_s : step.measured_s);
  const longest = Math.max(...steps.map(time));
  steps.forEach((step, i) => {
    const group = put(svg, "g", {
      class: `node ${step.phase}`, transform: `translate(${at[i].x} ${at[i].y})`, "data-step": i,
    });
    put(group, "title", {}, `step ${i}: ${step.call}\n${does(step)}\n${makes(step)}\n${seconds(time(step))}`);
    nodes.push(group);
    put(group, "rect", { class: "box", width: at[i].w, height: at[i].h });
    if (step.phase === "update") {
      const slot = Object.values(step.writes)[0] || step.call;
      put(group, "text", { x: 5, y: 11, "font-size": 10 }, elide(`${i} ${shortName(slot, step)}`, 16));
      return;
    }
    put(group, "rect", {
      class: "time", y: BOX.h - 4, x: 1, height: 3, width: Math.max(0.5, ((at[i].w - 2) * time(step)) / longest),
    });
    put(group, "text", { x: 6, y: 12, "font-size": 11 }, elide(`${i} ${step.node}`, Math.floor(at[i].w / 7)));
    put(group, "text", { x: 6, y: 23, "font-size": 10, opacity: 0.75 }, elide(does(step), Math.floor(at[i].w / 6.4)));
  });
  svg.addEventListener("click", (event) => {
    const group = event.target.closest(".node");
    if (group) choose(Number(group.dataset.step));
  });
  legend(byId("legend"), PHASES.filter((phase) => phase in left).map((phase) => [phase, phase]));
  return at;
}

// -- memory: what is alive in each step, stacked by what it is for --------------------------------------

const chart = { marks: {} };

function sums() {
  const found = Object.fromEntries(CATEGORIES.map(([name]) => [name, new Float64Array(steps.length + 1)]));
  for (const one of storages) {
    const sum = found[category(one)];
    sum[Math.max(one.first, 0)] += one.bytes;
    sum[one.last + 1] -= one.bytes;
  }
  for (const sum of Object.values(found)) for (let i = 1; i <= steps.length; i += 1) sum[i] += sum[i - 1];
  return found;
}

function drawMemory() {
  const box = byId("chart"), totals = chart.totals || (chart.totals = sums());
  box.replaceChildren();
  const w = Math.max(box.clientWidth, 120), h = Math.max(box.clientHeight, 120), n = steps.length; // 0 in a frame that is not laid out yet
  const [l, r, t, b] = [62, 14, 18, 42];
  const top = plan.peak.bytes * 1.06 || 1;
  const x = (i) => l + ((w - l - r) * i) / n, y = (v) => h - b - ((h - t - b) * v) / top;
  Object.assign(chart, { x, y, l, r, w, n, below: h - b + 11 });
  const svg = put(box, "svg", { width: w, height: h, role: "img", "aria-label": `peak ${bytes(plan.peak.bytes)} in step ${plan.peak.step}` });
  let tick = 1;
  while (top / tick > 5) tick *= 2;
  for (let v = 0; v <= top; v += tick) {
    put(svg, "line", { class: "grid", x1: l, x2: w - r, y1: y(v), y2: y(v) });
    put(svg, "text", { class: "label", x: l - 6, y: y(v) + 4, "text-anchor": "end" }, bytes(v));
  }
  let base = new Float64Array(n);
  for (const [name] of CATEGORIES) {
    const upper = base.map((low, i) => low + totals[name][i]);
    let d = `M${x(0)} ${y(upper[0])}`;
    for (let i = 0; i < n; i += 1) d += `V${y(upper[i]).toFixed(1)}H${x(i + 1).toFixed(1)}`;
    for (let i = n - 1; i >= 0; i -= 1) d += `V${y(base[i]).toFixed(1)}H${x(i).toFixed(1)}`;
    put(svg, "path", { d: d + "Z", style: `fill: var(--${name})`, "data-category": name });
    base = upper;
  }
  for (let i = 0; i < n;) { // a strip with the phases
    let end = i;
    while (end < n && steps[end].phase === steps[i].phase) end += 1;
    put(svg, "rect", { x: x(i), y: h - b + 3, width: x(end) - x(i), height: 5, style: `fill: var(--${steps[i].phase})` });
    i = end;
  }
  for (let i = 0, every = Math.max(1, Math.ceil(n / 12)); i < n; i += every) {
    put(svg, "text", { class: "label", x: x(i + 0.5), y: h - 6, "text-anchor": "middle" }, String(i));
  }
  chart.marks.life = put(svg, "g");
  chart.marks.cursor = put(svg, "line", { class: "cursor", y1: t, y2: h - b, visibility: "hidden" });
  chart.marks.mark = put(svg, "line", { class: "mark", y1: t - 6, y2: h - b + 8, visibility: "hidden" });
  const p = plan.peak.step, px = x(p + 0.5);
  put(svg, "circle", { class: "peak", cx: px, cy: y(plan.peak.bytes), r: 4 });
  const anchor = px > w * 0.7 ? "end" : px < w * 0.3 ? "start" : "middle";
  put(svg, "text", { class: "peak-label", x: px, y: y(plan.peak.bytes) - 7, "text-anchor": anchor }, `peak ${bytes(plan.peak.bytes)}, step ${p}`);
  markChart();
}

function stepAt(event) {
  const inside = event.clientX - byId("chart").getBoundingClientRect().left - chart.l;
  return Math.min(chart.n - 1, Math.max(0, Math.floor((inside * chart.n) / (chart.w - chart.l - chart.r))));
}

function showTip(event) {
  const i = stepAt(event), tip = byId("tip"), found = alive(i), step = steps[i];
  chart.marks.cursor.setAttribute("x1", chart.x(i + 0.5));
  chart.marks.cursor.setAttribute("x2", chart.x(i + 0.5));
  chart.marks.cursor.setAttribute("visibility", "visible");
  tip.replaceChildren();
  put(tip, "b", {}, `step ${i}: ${elide(step.call, 44)}`);
  put(tip, "div", {}, `${bytes(step.alive_bytes)} alive in ${found.length} values`);
  const table = put(tip, "table");
  for (const one of found.slice(0, 10)) {
    const row = put(table, "tr");
    put(put(row, "td"), "span", { class: "dot", style: `--colour: var(--${category(one)})` });
    put(row, "td", { class: "number" }, bytes(one.bytes));
    put(row, "td", {}, elide(one.name, 40));
  }
  if (found.length > 10) {
    const rest = found.slice(10).reduce((sum, one) => sum + one.bytes, 0);
    put(tip, "div", {}, `${bytes(rest)} in ${found.length - 10} others`);
  }
  tip.hidden = false;
  const place = tip.getBoundingClientRect();
  tip.style.left = Math.max(4, Math.min(event.clientX + 14, innerWidth - place.width - 8)) + "px";
  tip.style.top = Math.max(4, Math.min(event.clientY + 14, innerHeight - place.height - 8)) + "px";
}

function hideTip() {
  byId("tip").hidden = true;
  chart.marks.cursor.setAttribute("visibility", "hidden");
}

function markChart() {
  const { mark, life } = chart.marks;
  life.replaceChildren();
  mark.setAttribute("visibility", chosen === null ? "hidden" : "visible");
  if (chosen === null) return;
  mark.setAttribute("x1", chart.x(chosen + 0.5));
  mark.setAttribute("x2", chart.x(chosen + 0.5));
  const mine = storages.filter((one) => one.first === chosen).slice(0, 4); // storages are sorted: the largest
  mine.forEach((one, i) => { // the lifetimes of what the step makes
    const bar = put(life, "rect", {
      class: "life", x: chart.x(one.first), y: chart.below + 4 * i, width: chart.x(one.last + 1) - chart.x(one.first), height: 3,
    });
    put(bar, "title", {}, `${one.name}: steps ${one.first} to ${one.last}`);
  });
}

// -- table and detail ---------------------------------------------------------------------------------

const rows = [];

function drawTable() {
  const table = put(byId("table-scroll"), "table");
  const head = put(put(table, "thead"), "tr");
  const timed = steps.some((step) => step.measured_s !== undefined);
  const training = steps.some((step) => step.phase !== "forward");
  const blocks = steps.some((step) => step.makes.some((value) => value.layout));
  const columns = [
    ["step", (s) => s.step, "number"], ["node", (s) => s.node, "name"], ["does", does, "name"],
    ...(blocks ? [["layout", (s) => (s.makes.length ? layout(s.makes[0]) : "–"), ""]] : []),
    ["makes", makes, "name"],
    ["read", (s) => narrow(s.bytes_read), "number"], ["written", (s) => narrow(s.bytes_written), "number"],
    ["FLOPs", (s) => flops(s.flops), "number"], ["alive", (s) => narrow(s.alive_bytes), "number alive"],
    ["at least", (s) => seconds(s.at_least_s), "number"],
    ...(timed ? [["measured", (s) => seconds(s.measured_s), "number"]] : []),
    ["frees", (s) => s.frees.map((name) => shortName(name, s)).join(" ") || "–", "name"],
    ...(training ? [["kept for", (s) => keptFor(s) || "–", "name"]] : []),
  ];
  for (const [name, , kind] of columns) put(head, "th", { class: kind, scope: "col" }, name);
  const body = put(table, "tbody");
  steps.forEach((step, i) => {
    const row = put(body, "tr", { class: step.phase, "data-step": i, id: `row-${i}` });
    if (i === plan.peak.step) row.classList.add("at-peak");
    for (const [, cell, kind] of columns) {
      const text = String(cell(step));
      put(row, "td", kind === "name" ? { class: kind, title: text } : { class: kind }, text);
    }
    rows.push(row);
  });
  body.addEventListener("click", (event) => choose(Number(event.target.closest("tr").dataset.step)));
}

function keptFor(step) {
  return Object.entries(step.kept_for).map(([name, by]) => `${shortName(name, step)} ${by.join(" ")}`).join(", ");
}

function drawDetail() {
  const box = byId("detail");
  box.replaceChildren();
  if (chosen === null) {
    put(box, "p", { class: "none" }, "Choose a step in the graph, the timeline or the table.");
    return;
  }
  const step = steps[chosen];
  put(box, "h3", {}, `Step ${chosen}: ${step.call}`);
  const list = put(box, "dl");
  const entry = (name) => { put(list, "dt", {}, name); return put(list, "dd"); };
  entry("does").textContent = `${does(step)}, ${step.definition}.${step.method}${step.where ? ` (${step.where})` : ""}`;
  const reads = entry("reads");
  step.reads.forEach((name, i) => {
    put(reads, "span", {}, (i ? ", " : "") + name);
    if (producer.has(name)) { put(reads, "span", {}, " from step "); stepLink(reads, producer.get(name)); }
  });
  if (!step.reads.length) reads.textContent = "nothing";
  const describe = (value) => {
    const written = step.writes[value.name];
    const place = written ? `, over ${written}` : value.view_of ? `, view of ${value.view_of}` : "";
    return `${value.name} (${shape(value)}${value.layout ? `, ${layout(value)}` : ""}${place})`;
  };
  if (step.kind === "update") entry("writes").textContent = Object.values(step.writes).join(", ");
  else entry("makes").textContent = step.makes.map(describe).join(", ") || "nothing";
  entry("takes").textContent = `${bytes(step.bytes_read)} read, ${bytes(step.bytes_written)} written, ${flops(step.flops)} FLOPs, at least ${seconds(step.at_least_s)}${step.measured_s === undefined ? "" : `, measured ${seconds(step.measured_s)}`}`;
  entry("frees").textContent = step.frees.join(", ") || "nothing";
  for (const [name, by] of Object.entries(step.kept_for)) {
    const kept = entry("kept");
    put(kept, "span", {}, `${name} for step${by.length > 1 ? "s" : ""} `);
    by.forEach((number, i) => { if (i) put(kept, "span", {}, ", "); stepLink(kept, number); });
  }
}

// -- one step chosen, everywhere ----------------------------------------------------------------------

let chosen = null;
let marked = [];

function reveal(container, top, left, height, width) { // scroll no further than needed
  const margin = 40;
  if (top - margin < container.scrollTop) container.scrollTop = top - margin;
  else if (top + height + margin > container.scrollTop + container.clientHeight) container.scrollTop = top + height + margin - container.clientHeight;
  if (left < container.scrollLeft) container.scrollLeft = left - 12;
  else if (left + width > container.scrollLeft + container.clientWidth) container.scrollLeft = left + width + 12 - container.clientWidth;
}

function choose(step) {
  for (const element of marked) element.classList.remove("chosen", "near");
  if (chosen !== null) rows[chosen].removeAttribute("aria-selected");
  chosen = step;
  marked = [];
  const mark = (element, name) => { element.classList.add(name); marked.push(element); };
  if (step !== null) {
    mark(nodes[step], "chosen");
    mark(rows[step], "chosen");
    rows[step].setAttribute("aria-selected", "true");
    edges[step].forEach((edge) => mark(edge, "chosen"));
    for (const other of [...before[step], ...after[step]]) { mark(nodes[other], "near"); mark(rows[other], "near"); }
    drawDetail(); // first: it changes the table's height
    const { x, y, w, h } = positions[step];
    reveal(byId("graph-scroll"), y, x, h, w);
    reveal(byId("table-scroll"), rows[step].offsetTop, byId("table-scroll").scrollLeft, rows[step].offsetHeight, 0);
  } else {
    drawDetail();
  }
  markChart();
  history.replaceState(null, "", step === null ? "#" : `#step-${step}`);
}

function keys(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const last = steps.length - 1, at = chosen === null ? -1 : chosen;
  const moves = {
    ArrowDown: () => Math.min(last, at + 1), ArrowUp: () => Math.max(0, at - 1),
    ArrowRight: () => Math.min(last, at + 1), ArrowLeft: () => Math.max(0, at - 1),
    PageDown: () => Math.min(last, at + 10), PageUp: () => Math.max(0, at - 10),
    Home: () => 0, End: () => last, p: () => plan.peak.step, Escape: () => null,
  };
  if (!(event.key in moves)) return;
  event.preventDefault();
  choose(moves[event.key]());
}

function fromAddress() {
  const found = /^#step-(\d+)$/.exec(location.hash);
  return found && Number(found[1]) < steps.length ? Number(found[1]) : null;
}

byId("title").textContent = document.title;
const total = plan.totals.total;
byId("summary").textContent =
  `${steps.length} steps, peak ${bytes(plan.peak.bytes)} in step ${plan.peak.step}, ${flops(total.flops)} FLOPs, ` +
  `${bytes(total.bytes_read)} read, ${bytes(total.bytes_written)} written, at least ${seconds(total.at_least_s)} on ${plan.machine.device}` +
  (plan.measured ? `, measured ${seconds(plan.measured.whole)}` : "");
const positions = drawGraph();
legend(byId("categories"), CATEGORIES.filter(([name]) => storages.some((one) => category(one) === name)));
drawTable();
drawMemory();
drawDetail();
byId("chart").addEventListener("mousemove", showTip);
byId("chart").addEventListener("mouseleave", hideTip);
byId("chart").addEventListener("click", (event) => choose(stepAt(event)));
byId("to-peak").addEventListener("click", () => choose(plan.peak.step));
document.addEventListener("keydown", keys);
addEventListener("resize", drawMemory);
addEventListener("hashchange", () => choose(fromAddress()));
if (fromAddress() !== null) choose(fromAddress());
document.documentElement.dataset.ready = "true";
