"use strict";
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const one = (selector, root = document) => root.querySelector(selector);
  const hidden = { method: new Set(), seed: new Set() };

  /* Filters hide a method or a seed everywhere. They change no number. */

  const outOfSight = (thing) =>
    hidden.method.has(thing.dataset.method) || (thing.dataset.seed !== undefined && hidden.seed.has(thing.dataset.seed));

  function show() {
    for (const thing of all("[data-method]")) thing.classList.toggle("off", outOfSight(thing));
    for (const chip of all(".chip[data-filter]"))
      chip.setAttribute("aria-pressed", String(!hidden[chip.dataset.filter].has(chip.dataset.name)));
    const some = hidden.method.size + hidden.seed.size > 0;
    for (const part of all(".filtered, .chip.all")) part.hidden = !some;
    leave();
  }

  function showEvery(on) {
    document.body.classList.toggle("every-seed", on);
    for (const chip of all(".chip.every")) chip.setAttribute("aria-pressed", String(on));
    leave();
  }

  for (const chip of all(".chip[data-filter]"))
    chip.addEventListener("click", () => {
      const names = hidden[chip.dataset.filter];
      if (!names.delete(chip.dataset.name)) names.add(chip.dataset.name);
      show();
    });
  one(".chip.all")?.addEventListener("click", () => {
    hidden.method.clear();
    hidden.seed.clear();
    show();
    one(".chip").focus();
  });
  one(".chip.every")?.addEventListener("click", () => showEvery(!document.body.classList.contains("every-seed")));

  /* Tables: a click on a heading sorts, a second click reverses the order. Cells without a number stay last. */

  function order(rows, column, down) {
    const values = new Map(rows.map((row) => [row, row.cells[column].dataset.value]));
    const numeric = [...values.values()].every((value) => value === "nan" || value === "inf" || !isNaN(Number(value)));
    const compare = (a, b) => {
      if (!numeric) return a.localeCompare(b);
      return Number(a) - Number(b);
    };
    const missing = (row) => numeric && isNaN(Number(values.get(row)));
    return [...rows].sort((a, b) => {
      if (missing(a) || missing(b)) return missing(a) - missing(b);
      return (down ? -1 : 1) * compare(values.get(a), values.get(b));
    });
  }

  for (const button of all(".sort"))
    button.addEventListener("click", () => {
      const head = button.closest("th");
      const body = head.closest("table").tBodies[0];
      const down = head.getAttribute("aria-sort") === "ascending";
      for (const other of all("th", head.parentElement)) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      body.append(...order([...body.rows], head.cellIndex, down));
    });

  /* Charts: show the value nearest to the pointer, or the one that the arrow keys selected. */

  const tip = one("#tip");
  const pointer = document.createElementNS("http://www.w3.org/2000/svg", "circle");
  pointer.id = "pointer";
  pointer.setAttribute("r", "5");

  function curves(chart) {
    const { x, y, log, digits, tip: where } = JSON.parse(chart.dataset.scale);
    const along = ([low, high, start, end], value, f) => start + ((f(value) - f(low)) / (f(high) - f(low))) * (end - start);
    const told = (value) => (digits === null ? String(Number(value.toPrecision(4))) : value.toFixed(digits));
    return JSON.parse(chart.dataset.lines).map(({ m: method, s: seed, n: name, p: points }) =>
      points.flatMap(([at, value]) => {
        if (value < y[0] || value > y[1] || (log && value <= 0)) return []; // off the axis
        const text = `${name}, ${where.replace("{}", Number(at.toPrecision(5)))}: ${told(value)}`;
        return [{ x: along(x, at, Number), y: along(y, value, log ? Math.log10 : Number), text, method, seed }];
      }));
  }

  function marks(chart) {
    return all(".series", chart).map((group) =>
      all("[data-tip]", group).map((mark) => {
        const box = mark.getBBox();
        const [x, y] = [box.x + box.width / 2, box.y + box.height / 2];
        return { x, y, text: mark.dataset.tip, method: group.dataset.method, seed: mark.dataset.seed };
      }).sort((a, b) => a.x - b.x));
  }

  const drawn = (line) => line[0].seed === undefined || document.body.classList.contains("every-seed");
  const visible = (lines, curves) =>
    lines.filter((line) => line.length && !hidden.method.has(line[0].method) && (!curves || drawn(line)))
      .map((line) => line.filter((point) => !hidden.seed.has(point.seed)))
      .filter((line) => line.length);

  function enter(chart, point) {
    tip.textContent = point.text;
    tip.hidden = false;
    pointer.setAttribute("cx", point.x);
    pointer.setAttribute("cy", point.y);
    chart.append(pointer);
    for (const group of all(".series", chart))
      group.classList.toggle("near", (chart.dataset.scale ?? chart.dataset.near) !== undefined && group.dataset.method === point.method && group.dataset.seed === point.seed);
    const at = pointer.getBoundingClientRect();
    const size = tip.getBoundingClientRect();
    const left = Math.min(Math.max(4, at.x + at.width / 2 - size.width / 2), document.documentElement.clientWidth - size.width - 4);
    tip.style.left = `${left}px`;
    tip.style.top = `${at.y - size.height - 8 > 4 ? at.y - size.height - 8 : at.bottom + 8}px`;
  }

  function leave() {
    tip.hidden = true;
    pointer.remove();
    for (const group of all(".near")) group.classList.remove("near");
  }

  for (const chart of all(".chart")) {
    let known;
    let place = [0, 0];
    const lines = () => visible((known ??= chart.dataset.scale ? curves(chart) : marks(chart)), chart.dataset.scale);
    const nearest = (event) => {
      const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(chart.getScreenCTM().inverse());
      let best = null;
      for (const point of lines().flat()) {
        const far = Math.hypot(point.x - at.x, point.y - at.y) + (point.seed === undefined ? 0 : 3);
        if (best === null || far < best.far) best = { far, point };
      }
      if (best !== null && best.far < 60) enter(chart, best.point);
      else leave();
    };
    chart.addEventListener("pointermove", nearest);
    chart.addEventListener("pointerdown", nearest);
    chart.addEventListener("pointerleave", leave);
    chart.addEventListener("blur", leave);
    chart.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
      if (event.key === "Escape") leave();
      const shown = lines();
      if (!step || !shown.length) return;
      event.preventDefault();
      const started = !tip.hidden;
      const line = (place[0] + (started ? step[0] : 0) + shown.length) % shown.length;
      const index = Math.min(Math.max(0, place[1] + (started ? step[1] : 0)), shown[line].length - 1);
      place = [line, index];
      enter(chart, shown[line][index]);
    });
  }
  addEventListener("scroll", leave, { passive: true });

  /* While something is to come, the page reads its file again. It keeps what is hidden, folded and scrolled. */

  const KEPT = `bisam ${location.pathname}`;
  const live = one("#refreshing");

  function keep() {
    const state = {
      method: [...hidden.method], seed: [...hidden.seed], every: document.body.classList.contains("every-seed"),
      open: all("details").map((part) => part.open), at: scrollY,
    };
    try { sessionStorage.setItem(KEPT, JSON.stringify(state)); } catch { /* a browser may forbid it */ }
  }

  function restore() {
    let state = null;
    try {
      state = JSON.parse(sessionStorage.getItem(KEPT));
      sessionStorage.removeItem(KEPT);
    } catch { /* nothing was kept */ }
    if (!state) return;
    for (const kind of ["method", "seed"]) for (const name of state[kind]) hidden[kind].add(name);
    all("details").forEach((part, i) => { part.open = state.open[i] ?? part.open; });
    show();
    showEvery(state.every);
    scrollTo(0, state.at);
  }

  restore();
  if (live) {
    const age = () => (Date.now() - new Date(one(".live time").dateTime)) / 1000;
    const stale = 900; // of a page that nobody writes any more there is nothing new
    if (age() > stale) live.textContent = "It was not written again since.";
    else setInterval(() => {
      if (document.hidden || !tip.hidden) return;
      keep();
      location.reload();
    }, 1000 * Number(live.dataset.seconds));
  }

  /* Print: unfold everything, because in some browsers the style sheet cannot. */

  let folded = [];
  addEventListener("beforeprint", () => {
    leave();
    folded = all("details:not([open])");
    for (const part of folded) part.open = true;
  });
  addEventListener("afterprint", () => {
    for (const part of folded) part.open = false;
  });
})();
