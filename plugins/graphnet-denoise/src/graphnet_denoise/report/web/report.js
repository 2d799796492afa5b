"use strict";
(() => {
  let data = JSON.parse(document.getElementById("data").textContent);
  const at = id => document.getElementById(id);
  const SVG = "http://www.w3.org/2000/svg";

  function made(name, attributes, parent, text) {
    const element = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    if (text !== undefined) element.textContent = text;
    parent.append(element);
    return element;
  }

  // An element of HTML; text is set as text, never as markup: names come from files.
  function element(name, attributes, text, ...children) {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    if (text !== undefined) made.textContent = text;
    made.append(...children);
    return made;
  }

  function tell(id, words) {
    at(id).textContent = words;
    at(id).hidden = !words;
  }

  function bytes(count) {
    const units = ["B", "KiB", "MiB", "GiB"];
    let unit = 0;
    while (count >= 1024 && unit < 3) { count /= 1024; unit += 1; }
    return `${unit && count < 100 ? count.toFixed(1) : Math.round(count)} ${units[unit]}`;
  }

  function number(value) {
    if (value === null || value === undefined) return "none";
    const size = Math.abs(value);
    return size !== 0 && (size < 1e-3 || size >= 1e6) ? value.toExponential(2) : String(+value.toPrecision(5));
  }

  // -- curves ---------------------------------------------------------------------------------------

  // Draw points [x, y] as a curve; pointing at it reads the nearest one.
  function chart(box, points, words) {
    box.replaceChildren();
    const known = points.filter(([, y]) => Number.isFinite(y) && (!words.log || y > 0))
      .map(([x, y]) => [x, words.log ? Math.log10(y) : y]);
    const value = y => words.log ? 10 ** y : y;
    if (known.length === 0) { box.textContent = "no numbers yet"; return; }
    const width = 560, height = 220, left = 58, right = 12, top = 18, bottom = 34;
    const svg = made("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": words.title }, box);
    const xs = known.map(([x]) => x), ys = known.map(([, y]) => y);
    const span = (values, around) => {
      let low = Math.min(...values), high = Math.max(...values);
      if (around !== undefined) { low = Math.min(low, around[0]); high = Math.max(high, around[1]); }
      if (high === low) { low -= Math.abs(low) / 10 || 1; high += Math.abs(high) / 10 || 1; }
      return [low, high];
    };
    const [x0, x1] = span(xs, words.across), [y0, y1] = span(ys, words.around);
    const px = x => left + (x - x0) / (x1 - x0) * (width - left - right);
    const py = y => height - bottom - (y - y0) / (y1 - y0) * (height - top - bottom);
    const digits = (low, high) => Math.min(6, 3 + Math.max(0, Math.floor(Math.log10(Math.max(Math.abs(low), Math.abs(high)) / (high - low)))));
    const read = words.log ? 3 : digits(y0, y1);
    for (let i = 0; i <= 4; i++) {
      const y = y0 + (y1 - y0) * i / 4, x = x0 + (x1 - x0) * i / 4;
      made("line", { class: "grid", x1: left, x2: width - right, y1: py(y), y2: py(y) }, svg);
      made("text", { x: left - 6, y: py(y) + 4, "text-anchor": "end" }, svg, number(+value(y).toPrecision(read)) + (words.unit ?? ""));
      made("text", { x: px(x), y: height - bottom + 15, "text-anchor": i < 4 ? "middle" : "end" }, svg, number(+x.toPrecision(3)));
    }
    made("text", { x: (left + width - right) / 2, y: height - 4, "text-anchor": "middle" }, svg, words.x);
    if (words.mark) {
      const [x, text] = words.mark;
      made("line", { class: "mark", x1: px(x), x2: px(x), y1: top, y2: height - bottom }, svg);
      made("text", { x: px(x) + 4, y: top + 10 }, svg, text);
    }
    made("path", { class: "curve", d: known.map(([x, y], i) => (words.stepped && i ? `H${px(x)}V${py(y)}` : `${i ? "L" : "M"}${px(x)} ${py(y)}`)).join("") }, svg);
    if (known.length <= 60) for (const [x, y] of known) made("circle", { class: "dot", cx: px(x), cy: py(y), r: 2.2 }, svg);
    const pointed = made("circle", { class: "pointed", r: 4, visibility: "hidden" }, svg);
    const reading = made("text", { class: "reading", x: left, y: 11 }, svg, "");
    svg.addEventListener("pointermove", event => {
      const place = (event.clientX - svg.getBoundingClientRect().left) / svg.getBoundingClientRect().width * width;
      const [x, y] = known.reduce((a, b) => Math.abs(px(b[0]) - place) < Math.abs(px(a[0]) - place) ? b : a);
      pointed.setAttribute("cx", px(x));
      pointed.setAttribute("cy", py(y));
      pointed.setAttribute("visibility", "visible");
      reading.textContent = `${words.x} ${number(x)}: ${number(value(y))}${words.unit ?? ""}`;
    });
  }

  function section(parent, title) {
    const made = document.createElement("section"), heading = document.createElement("h2"), box = document.createElement("div");
    made.setAttribute("aria-label", title);
    heading.textContent = title;
    box.className = "chart";
    made.append(heading, box);
    parent.append(made);
    return box;
  }

  // -- images ---------------------------------------------------------------------------------------

  const SIDES = { denoised: "denoised", target: "target", removed: "what was removed", spectrum: "its spectrum" };
  const state = { name: null, side: "denoised", split: 0.5, scale: 1, x: 0, y: 0, fits: true };
  const viewer = at("viewer"), divider = at("divider");
  const panes = ["left", "right"].map(id => at(id));
  let picture = null; // the one that is shown; null before the first, and if it cannot be shown

  function placed() {
    const width = viewer.clientWidth, edge = state.split * width;
    at("left").style.clipPath = `inset(0 ${width - edge}px 0 0)`;
    at("right").style.clipPath = `inset(0 0 0 ${edge}px)`;
    divider.style.left = `${edge}px`;
    divider.setAttribute("aria-valuenow", Math.round(100 * state.split));
    for (const pane of panes)
      pane.firstElementChild.style.transform = `translate(${state.x}px, ${state.y}px) scale(${state.scale})`;
    for (const button of at("zooms").children) button.setAttribute("aria-pressed", String(state.fits ? button.dataset.scale === "0" : +button.dataset.scale === state.scale));
  }

  // Zoom, and keep the point (x, y) of the viewer where it is.
  function zoomed(scale, x = viewer.clientWidth / 2, y = viewer.clientHeight / 2) {
    scale = Math.min(64, Math.max(0.1, scale));
    state.x = x - (x - state.x) * scale / state.scale;
    state.y = y - (y - state.y) * scale / state.scale;
    state.scale = scale;
    state.fits = false;
    placed();
  }

  function fitted() {
    state.fits = true;
    const { width, height } = picture ?? { width: 1, height: 1 };
    state.scale = Math.min(viewer.clientWidth / width, viewer.clientHeight / height);
    state.x = (viewer.clientWidth - width * state.scale) / 2;
    state.y = (viewer.clientHeight - height * state.scale) / 2;
    placed();
  }

  function shown() {
    const images = picture?.images ?? {};
    if (picture && !(state.side in images)) state.side = "denoised";
    for (const [pane, side] of [["left", "noisy"], ["right", state.side]]) {
      const image = at(pane).firstElementChild;
      image.hidden = !picture;
      if (picture) image.src = images[side];
    }
    at("right").firstElementChild.alt = SIDES[state.side];
    at("tag-right").textContent = SIDES[state.side];
    at("sides").replaceChildren(...Object.keys(SIDES).filter(side => side in images).map(side => {
      const button = element("button", { "data-side": side, "aria-pressed": String(side === state.side) }, SIDES[side]);
      button.addEventListener("click", () => { state.side = side; shown(); });
      return button;
    }));
    at("numbers").replaceChildren(...Object.entries(picture?.numbers ?? {}).map(([name, value]) =>
      element("tr", {}, undefined, element("th", {}, name), element("td", {}, value.toFixed(2)))));
    tell("note", picture?.note ?? "");
    at("removed").hidden = !picture;
    if (picture) chart(at("rings"), picture.rings, { title: "power by frequency", x: "cycles a pixel", log: true, across: [0, 0.5], around: [-1, 1] });
    placed();
  }

  // Show the chosen image. A page that is served asks for it, and the image before it stays until it has come.
  let asked = "";
  async function looked() {
    const entry = data.pictures.find(one => one.name === state.name);
    if (entry.address === undefined) {
      taken(entry);
    } else if (entry.address !== asked) {
      asked = entry.address;
      tell("waiting", `${picture && picture.name === entry.name ? "denoising again" : "denoising"}: ${entry.name}`);
      let found;
      try {
        found = await answer(entry.address);
      } catch {
        if (asked === entry.address) asked = ""; // it is asked for again after the next change
        found = { error: "The image did not come." };
      }
      if (data.pictures.some(one => one.name === state.name && one.address === entry.address)) taken(found);
    }
  }

  function taken(found) {
    const before = picture;
    picture = found.error === undefined ? found : null;
    tell("waiting", found.error ?? "");
    shown();
    if (picture && (state.fits || before?.name !== picture.name)) fitted();
  }

  function choices() {
    const names = data.pictures.map(one => one.name);
    at("images").hidden = names.length === 0;
    if (names.length === 0) { at("removed").hidden = true; return; }
    if (!names.includes(state.name)) state.name = names[0];
    if (names.join("\0") !== [...at("which").options].map(one => one.value).join("\0"))
      at("which").replaceChildren(...names.map(name => new Option(name, name)));
    at("which").value = state.name;
    looked();
  }

  function listen() {
    at("which").addEventListener("change", event => { state.name = event.target.value; looked(); });
    for (const [scale, words] of [[0, "fit"], [1, "1:1"], [2, "2:1"], [4, "4:1"], [8, "8:1"]]) {
      const button = element("button", { "data-scale": scale }, words);
      button.addEventListener("click", () => scale ? zoomed(scale) : fitted());
      at("zooms").append(button);
    }
    let dragged = null;
    const split = event => {
      const box = viewer.getBoundingClientRect();
      state.split = Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
      placed();
    };
    divider.addEventListener("pointerdown", event => { dragged = "split"; viewer.setPointerCapture(event.pointerId); event.stopPropagation(); });
    viewer.addEventListener("pointerdown", event => { dragged = "image"; viewer.setPointerCapture(event.pointerId); });
    viewer.addEventListener("pointermove", event => {
      if (dragged === "split") split(event);
      if (dragged === "image") { state.x += event.movementX; state.y += event.movementY; state.fits = false; placed(); }
    });
    for (const end of ["pointerup", "pointercancel"]) viewer.addEventListener(end, () => { dragged = null; });
    viewer.addEventListener("wheel", event => {
      event.preventDefault();
      const box = viewer.getBoundingClientRect();
      zoomed(state.scale * (event.deltaY < 0 ? 1.25 : 0.8), event.clientX - box.left, event.clientY - box.top);
    }, { passive: false });
    document.addEventListener("keydown", event => {
      if (event.target.matches("select, input") || event.ctrlKey || event.metaKey || event.altKey) return;
      const step = { ArrowLeft: -0.02, ArrowRight: 0.02 }[event.key];
      if (step !== undefined) { state.split = Math.min(1, Math.max(0, state.split + step)); placed(); event.preventDefault(); }
      if (event.key === "+" || event.key === "=") zoomed(state.scale * 1.25);
      if (event.key === "-") zoomed(state.scale * 0.8);
    });
    window.addEventListener("resize", () => state.fits ? fitted() : placed());
  }

  // -- the network ----------------------------------------------------------------------------------

  const ms = seconds => (seconds * 1e3).toPrecision(3);
  const operations = flops => `${(flops / 1e9).toPrecision(3)} G`;

  // What is said of every plan.
  function planWords(plan) {
    return `${plan.title} · ${plan.steps} steps · at least ${ms(plan.total.at_least_s)} ms on ${plan.machine}` +
      ` · ${bytes(plan.peak.bytes)} at the peak, in step ${plan.peak.step} · ${operations(plan.total.flops)} operations`;
  }

  // Rows of cells; a cell { seconds } has a bar. `kinds` are the classes of the columns.
  function filled(table, heads, kinds, rows) {
    const longest = Math.max(...rows.flatMap(({ cells }) => cells.map(cell => cell?.seconds ?? 0))) || 1;
    const head = element("thead", {}, undefined, element("tr", {}, undefined, ...heads.map((text, i) => element("th", { scope: "col", class: kinds[i] }, text))));
    const body = element("tbody", {}, undefined, ...rows.map(({ cells, kind }) =>
      element("tr", kind ? { class: kind } : {}, undefined, ...cells.map((cell, i) => {
        if (cell?.seconds === undefined) return element("td", { class: kinds[i] }, cell);
        const bar = element("span", { class: "bar" });
        bar.style.width = `${60 * cell.seconds / longest}px`;
        return element("td", {}, undefined, bar, ms(cell.seconds));
      }))));
    table.replaceChildren(head, body);
  }

  const planned = {}; // the address of the page with the graph, by the name of the plan

  // Whether a plan is another one than before; its section is shown, and an old graph is closed.
  function isNew(name, graph) {
    const plan = data[name];
    at(name).hidden = plan === null;
    if (plan === null || plan.page === planned[name]) return false;
    planned[name] = plan.page;
    at(graph).querySelector("iframe")?.remove();
    at(graph).open = false;
    return true;
  }

  function network() {
    if (!isNew("network", "graph")) return;
    const { network } = data;
    at("plan").textContent = planWords(network);
    filled(at("layers").firstElementChild,
      ["step", "layer", "kernel", "output", "ms, predicted", "bytes read and written", "memory in use"],
      ["number", "", "", "", "", "number", "number"],
      network.layers.map(one => ({
        kind: one.step === network.peak.step ? "peak" : "",
        cells: [one.step, one.layer, one.kernel, one.shape, { seconds: one.seconds }, bytes(one.bytes), bytes(one.alive)],
      })));
    chart(at("memory"), network.layers.map(one => [one.step, one.alive / 2 ** 20]),
      { title: "memory in use", x: "step", unit: " MiB", around: [0, 0], stepped: true });
  }

  function trainingStep() {
    if (!isNew("training", "training-graph")) return;
    const { training } = data;
    at("training-plan").textContent = planWords(training);
    const highest = Math.max(...training.parts.map(one => one.alive));
    filled(at("parts").firstElementChild,
      ["part", "steps", "ms, predicted", "operations", "bytes read and written", "most memory in use"],
      ["", "number", "", "number", "number", "number"],
      training.parts.map(one => ({
        kind: one.alive === highest ? "peak" : "",
        cells: [one.part, one.steps, { seconds: one.seconds }, operations(one.flops), bytes(one.bytes), bytes(one.alive)],
      })));
    const held = Object.entries(training.peak.holds).map(([what, count]) => `${what} ${bytes(count)}`);
    at("held").textContent = `At the peak, the memory holds: ${held.join(", ")}.`;
    chart(at("training-memory"), training.memory.map(([step, count]) => [step, count / 2 ** 20]),
      { title: "memory in use in a training step", x: "step", unit: " MiB", around: [0, 0], stepped: true, mark: training.loss === null ? null : [training.loss, "loss"] });
  }

  // The page of `graphnet explain`, made when it is opened.
  function graphOf(name, id) {
    if (!at(id).open || at(id).querySelector("iframe")) return;
    const address = URL.createObjectURL(new Blob([data[name].page], { type: "text/html" }));
    const frame = element("iframe", { title: "Graph of the steps", src: address });
    frame.addEventListener("load", () => URL.revokeObjectURL(address));
    at(id).append(frame);
  }

  // -- the page -------------------------------------------------------------------------------------

  function training() {
    for (const section of document.querySelectorAll(".of-run")) section.hidden = data.run === null;
    at("metrics").hidden = data.run === null;
    at("removed").classList.toggle("wide", data.run === null);
    tell("summary", "");
    if (data.run === null) return;
    const { steps, epochs, start, stopped } = data.run;
    const last = epochs[epochs.length - 1];
    const words = [];
    if (last) {
      words.push(`${last.epoch} epochs, ${last.step} steps, ${number(Math.round(last.elapsed_s))} s`);
      for (const [name, value] of Object.entries(last.metrics ?? {})) words.push(`${name} ${number(value)}`);
    }
    if (start.device) words.push(`${start.device}, ${start.precision}`);
    if (stopped) words.push(`stopped: ${stopped}`);
    tell("summary", words.join(" · "));
    chart(at("loss"), steps.map(one => [one.step, one.loss]), { title: "training loss", x: "step" });
    at("metrics").replaceChildren();
    for (const name of Object.keys(last?.metrics ?? {}))
      chart(section(at("metrics"), `Validation: ${name}`), epochs.map(one => [one.epoch, one.metrics?.[name]]), { title: name, x: "epoch" });
    const { config = {}, versions = {}, ...rest } = start;
    at("settings").textContent = JSON.stringify({ ...rest, kind: undefined, config }, null, 2);
    at("versions").textContent = JSON.stringify(versions, null, 2);
  }

  function draw() {
    document.title = document.querySelector("h1").textContent = data.title;
    tell("remark", data.remark);
    training();
    network();
    trainingStep();
    choices();
  }

  async function answer(address) {
    const response = await fetch(address);
    if (!response.ok) throw new Error(response.statusText);
    return response.json();
  }

  // Ask for changes, and draw them; what the reader has chosen stays.
  async function follow() {
    try {
      const { version } = await answer("version");
      if (version !== data.version) {
        data = await answer("data");
        draw();
      }
      tell("live", "This page follows the changes.");
    } catch {
      tell("live", "The command that serves this page has ended: nothing changes any more.");
    }
    setTimeout(follow, 2000);
  }

  listen();
  draw();
  for (const [name, id] of [["network", "graph"], ["training", "training-graph"]])
    at(id).addEventListener("toggle", () => graphOf(name, id));
  if (data.version !== null) setTimeout(follow, 2000);
  document.documentElement.dataset.ready = "true";
})();
