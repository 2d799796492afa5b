"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const at = id => document.getElementById(id);
  const SVG = "http://www.w3.org/2000/svg";

  function made(name, attributes, parent, text) {
    const element = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    if (text !== undefined) element.textContent = text;
    parent.append(element);
    return element;
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
    for (let i = 0; i <= 4; i++) {
      const y = y0 + (y1 - y0) * i / 4, x = x0 + (x1 - x0) * i / 4;
      made("line", { class: "grid", x1: left, x2: width - right, y1: py(y), y2: py(y) }, svg);
      made("text", { x: left - 6, y: py(y) + 4, "text-anchor": "end" }, svg, number(+value(y).toPrecision(3)));
      made("text", { x: px(x), y: height - bottom + 15, "text-anchor": i < 4 ? "middle" : "end" }, svg, number(+x.toPrecision(3)));
    }
    made("text", { x: (left + width - right) / 2, y: height - 4, "text-anchor": "middle" }, svg, words.x);
    made("path", { class: "curve", d: known.map(([x, y], i) => `${i ? "L" : "M"}${px(x)} ${py(y)}`).join("") }, svg);
    if (known.length <= 60) for (const [x, y] of known) made("circle", { class: "dot", cx: px(x), cy: py(y), r: 2.2 }, svg);
    const pointed = made("circle", { class: "pointed", r: 4, visibility: "hidden" }, svg);
    const reading = made("text", { class: "reading", x: left, y: 11 }, svg, "");
    svg.addEventListener("pointermove", event => {
      const place = (event.clientX - svg.getBoundingClientRect().left) / svg.getBoundingClientRect().width * width;
      const [x, y] = known.reduce((a, b) => Math.abs(px(b[0]) - place) < Math.abs(px(a[0]) - place) ? b : a);
      pointed.setAttribute("cx", px(x));
      pointed.setAttribute("cy", py(y));
      pointed.setAttribute("visibility", "visible");
      reading.textContent = `${words.x} ${number(x)}: ${number(value(y))}`;
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
  const state = { which: 0, side: "denoised", split: 0.5, scale: 1, x: 0, y: 0, fits: true };
  const viewer = at("viewer"), divider = at("divider");
  const panes = ["left", "right"].map(id => at(id));

  function placed() {
    const width = viewer.clientWidth, edge = state.split * width;
    at("left").style.clipPath = `inset(0 ${width - edge}px 0 0)`;
    at("right").style.clipPath = `inset(0 0 0 ${edge}px)`;
    divider.style.left = `${edge}px`;
    divider.setAttribute("aria-valuenow", Math.round(100 * state.split));
    for (const pane of panes)
      pane.firstElementChild.style.transform = `translate(${state.x}px, ${state.y}px) scale(${state.scale})`;
    viewer.dataset.scale = state.scale;
    viewer.dataset.split = state.split.toFixed(3);
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
    const { width, height } = data.pictures[state.which];
    state.scale = Math.min(viewer.clientWidth / width, viewer.clientHeight / height);
    state.x = (viewer.clientWidth - width * state.scale) / 2;
    state.y = (viewer.clientHeight - height * state.scale) / 2;
    placed();
  }

  function shown() {
    const picture = data.pictures[state.which];
    if (!(state.side in picture.images)) state.side = "denoised";
    at("left").firstElementChild.src = picture.images.noisy;
    at("right").firstElementChild.src = picture.images[state.side];
    at("right").firstElementChild.alt = SIDES[state.side];
    at("tag-right").textContent = SIDES[state.side];
    at("sides").replaceChildren(...Object.keys(SIDES).filter(side => side in picture.images).map(side => {
      const button = document.createElement("button");
      button.textContent = SIDES[side];
      button.dataset.side = side;
      button.setAttribute("aria-pressed", String(side === state.side));
      button.addEventListener("click", () => { state.side = side; shown(); });
      return button;
    }));
    at("numbers").replaceChildren(...Object.entries(picture.numbers).map(([name, value]) => {
      const row = document.createElement("tr"), head = document.createElement("th"), cell = document.createElement("td");
      head.textContent = name;
      cell.textContent = value.toFixed(2);
      row.append(head, cell);
      return row;
    }));
    chart(at("rings"), picture.rings, { title: "power by frequency", x: "cycles a pixel", log: true, across: [0, 0.5], around: [-1, 1] });
    placed();
  }

  function looked() {
    at("look").hidden = at("removed").hidden = false;
    data.pictures.forEach((picture, i) => at("which").add(new Option(picture.name, i)));
    at("which").addEventListener("change", event => { state.which = +event.target.value; shown(); fitted(); });
    for (const [scale, words] of [[0, "fit"], [1, "1:1"], [2, "2:1"], [4, "4:1"], [8, "8:1"]]) {
      const button = document.createElement("button");
      button.textContent = words;
      button.dataset.scale = scale;
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
      if (dragged === "image") { state.x += event.movementX; state.y += event.movementY; placed(); }
    });
    for (const end of ["pointerup", "pointercancel"]) viewer.addEventListener(end, () => { dragged = null; });
    viewer.addEventListener("wheel", event => {
      event.preventDefault();
      const box = viewer.getBoundingClientRect();
      zoomed(state.scale * (event.deltaY < 0 ? 1.25 : 0.8), event.clientX - box.left, event.clientY - box.top);
    }, { passive: false });
    document.addEventListener("keydown", event => {
      if (event.target.matches("select, input")) return;
      const step = { ArrowLeft: -0.02, ArrowRight: 0.02 }[event.key];
      if (step !== undefined) { state.split = Math.min(1, Math.max(0, state.split + step)); placed(); event.preventDefault(); }
      if (event.key === "+" || event.key === "=") zoomed(state.scale * 1.25);
      if (event.key === "-") zoomed(state.scale * 0.8);
    });
    window.addEventListener("resize", () => state.fits ? fitted() : placed());
    shown();
    fitted();
  }

  // -- the page -------------------------------------------------------------------------------------

  document.querySelector("h1").textContent = data.title;
  const last = data.epochs[data.epochs.length - 1];
  const words = [];
  if (last) {
    words.push(`${last.epoch} epochs, ${last.step} steps, ${number(Math.round(last.elapsed_s))} s`);
    for (const [name, value] of Object.entries(last.metrics ?? {})) words.push(`${name} ${number(value)}`);
  }
  if (data.start.device) words.push(`${data.start.device}, ${data.start.precision}`);
  if (data.stopped) words.push(`stopped: ${data.stopped}`);
  at("summary").textContent = words.join(" · ");
  at("remark").textContent = data.remark;
  at("remark").hidden = !data.remark;
  chart(at("loss"), data.steps.map(one => [one.step, one.loss]), { title: "training loss", x: "step" });
  for (const name of Object.keys(last?.metrics ?? {}))
    chart(section(at("metrics"), `Validation: ${name}`), data.epochs.map(one => [one.epoch, one.metrics[name]]), { title: name, x: "epoch" });
  const { config = {}, versions = {}, ...rest } = data.start;
  at("settings").textContent = JSON.stringify({ ...rest, kind: undefined, config }, null, 2);
  at("versions").textContent = JSON.stringify(versions, null, 2);
  if (data.pictures.length) looked();
  document.documentElement.dataset.ready = "true";
})();
