// One chart of one quantity: uPlot draws its curves; round it what reads them (reading.js) and what moves it (touch.js).
"use strict";
(() => {
  const { iot } = window;
  const colours = new Map(); // of the theme: asking the browser each time takes a slow phone a tenth of a second
  document.addEventListener("themechange", () => colours.clear());
  const css = (name) => {
    if (!colours.has(name)) colours.set(name, getComputedStyle(document.documentElement).getPropertyValue(name).trim());
    return colours.get(name);
  };
  const DASHES = [[], [7, 4], [2, 3], [10, 3, 2, 3]];
  const SHADES = [["--bs-body-color", 0], ["--bs-body-color", 0.45], ["--surface", 0.2], ["--bs-body-color", 0.75]];
  const DAY = 86400000;
  const ROOM = 10; // pixels to the right of what is drawn
  const REACH = 24; // pixels: what is further from the crosshair is not under it
  const channels = (hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
  const mixed = (a, b, share) => `#${channels(a).map((v, i) => Math.round(v + (channels(b)[i] - v) * share).toString(16).padStart(2, "0")).join("")}`;

  // Colours belong to quantities; the n-th sensor of the board has its shade and dashes, the same on every chart: sixteen
  // differ.
  iot.paint = (quantity, n) => {
    const [towards, share] = SHADES[n % SHADES.length];
    return { stroke: mixed(css(`--c-${quantity}`), css(towards), share), dash: DASHES[(n + Math.floor(n / SHADES.length)) % DASHES.length] };
  };

  // One name for each moment of the axis: the clock, with the date where it changes; days; months. The last one is left
  // out where it would be cut.
  const named = (splits, step) => splits.map((ms, i) => {
    if (step >= 28 * DAY) return iot.month(ms);
    const year = (at) => iot.date(at).slice(0, 4);
    if (step >= DAY) return iot.day(ms, i ? year(ms) !== year(splits[i - 1]) : undefined);
    const turned = i === 0 || iot.date(ms) !== iot.date(splits[i - 1]);
    return iot.clock(ms, step < 60000) + (turned ? `\n${iot.day(ms)}` : "");
  });
  const ticks = (u, splits, _axis, _space, step) => {
    const names = named(splits, step), wide = 6 * Math.max(...(names.at(-1) ?? "").split("\n").map((line) => line.length));
    const room = u.bbox.width / devicePixelRatio - u.valToPos(splits.at(-1), "x") + ROOM;
    if (room < wide / 2) names[names.length - 1] = "";
    return names;
  };

  iot.Chart = class {
    // `board` knows the range, the sensors' numbers, the lines, the nights, and is told of zooming.
    constructor(root, board) {
      const { field, label, unit = "", colour, decimals = "2" } = root.dataset;
      Object.assign(this, { root, board, field, label, unit, colour, decimals: Number(decimals), curves: [], wanted: !root.hidden });
      this.plot = document.createElement("div");
      this.plot.className = "plot";
      this.plot.tabIndex = 0;
      this.plot.setAttribute("role", "application");
      this.plot.setAttribute("aria-roledescription", "chart");
      this.plot.setAttribute("aria-label", `${label}: arrow keys read the values`);
      this.none = document.createElement("p");
      this.none.className = "chart-none";
      this.tip = document.createElement("div");
      this.tip.className = "chart-tip";
      this.tip.hidden = true;
      root.append(this.plot);
      this.reading = new iot.Reading(this);
      new ResizeObserver(() => this.fit()).observe(this.plot);
      // Drawn when it comes near the screen, each in a task of its own: a slow phone stays quick to the touch. The first
      // one is drawn at once.
      this.onScreen = root === document.querySelector(".chart") && root.clientWidth > 0;
      new IntersectionObserver(([entry]) => {
        this.onScreen = entry.isIntersecting;
        if (this.onScreen && this.due) setTimeout(() => this.draw());
      }, { rootMargin: "300px" }).observe(this.plot);
    }

    // `wanted`: the visitor has it among the charts to see. A computed one without values is left out, unless it was named.
    arrange(wanted) {
      this.wanted = wanted;
      const empty = this.root.classList.contains("is-computed") && !this.board.fields.includes(this.field) && this.loaded && !this.curves.some((curve) => curve.v.some((v) => v !== null));
      (this.root.closest(".chart-panel") ?? this.root).hidden = !wanted || empty;
    }

    // A list of {field, sensor, device, t, v, low?, high?}, times in Unix ms; null where a line breaks.
    // `why`: said where there are none.
    set(curves, why = "No data in this range") {
      Object.assign(this, { curves, why });
      this.loaded = true;
      this.arrange(this.wanted);
      if (this.onScreen) this.draw(); else this.due = true;
    }

    restyle() { // other colours or units: from the start
      this.built = null;
      if (this.onScreen) this.draw(); else this.due = true;
    }

    draw() {
      this.due = false;
      const filled = this.curves.filter((curve) => curve.v.some((v) => v !== null));
      this.plot.classList.toggle("is-empty", filled.length === 0);
      if (filled.length) this.build(filled); else this.clear();
      this.reading.draw(filled);
    }

    clear() { // no data: words, and no axis that nobody measured
      this.u?.destroy();
      this.u = this.built = null;
      this.none.textContent = this.loaded ? this.why : "Loading …";
      this.plot.replaceChildren(this.none);
    }

    build(curves) {
      const shown = (values) => values.map((v) => (v === null ? null : iot.convert(v, this.unit)));
      const banded = (curve) => curve.low && curve.high;
      // Sensors have times of their own: joined, with a hole where one has none (a line bridges it, but no null).
      const tables = curves.map((c) => [c.t, shown(c.v), ...(banded(c) ? [shown(c.low), shown(c.high)] : [])]);
      const data = tables.length > 1 ? uPlot.join(tables) : tables[0];
      const shape = JSON.stringify(curves.map((c) => [this.board.place(c), banded(c), c.t.length < 3]));
      const series = [{}], bands = [];
      this.lines = []; // of the data, the rows that hold a curve's values
      for (const curve of curves) {
        const { stroke, dash } = iot.paint(this.colour, this.board.place(curve));
        this.lines.push({ curve, row: series.length, low: banded(curve) ? series.length + 1 : null });
        series.push({ stroke, dash, width: 1.75, points: { show: curve.t.length < 3, size: 6, fill: stroke } });
        if (!banded(curve)) continue;
        bands.push({ series: [series.length + 1, series.length], fill: `${stroke}2b` });
        const edge = { stroke: "transparent", width: 0, points: { show: false } };
        series.push(edge, { ...edge });
      }
      if (this.built === shape) { this.u.setData(data); return; } // what is new goes into the chart that is there
      this.u?.destroy();
      this.built = shape;
      this.plot.replaceChildren();
      this.tip.hidden = true;
      this.u = new uPlot({ ...this.options(), series, bands }, data, this.plot);
      this.u.over.append(this.tip);
      iot.touch(this.u.over, { range: () => this.board.range(), show: (a, b) => this.board.follow(a, b), done: (a, b) => this.board.zoom(a, b), tap: (left) => this.u.setCursor({ left, top: 10 }) });
      this.u.over.addEventListener("dblclick", () => this.board.zoom(null));
    }

    options() {
      const axis = { stroke: css("--bs-secondary-color"), font: `11px ${css("--bs-font-sans-serif")}`, grid: { stroke: css("--grid"), width: 1 }, ticks: { show: false } };
      const digits = (step) => [0, 1, 2, 3, 4, 5, 6].find((n) => Math.abs(step * 10 ** n - Math.round(step * 10 ** n)) < 1e-6) ?? 6;
      return {
        width: Math.max(this.plot.clientWidth, 100), height: this.plot.clientHeight, ms: 1, padding: [10, ROOM, 0, 0],
        tzDate: (ms) => (iot.prefs.zone === "utc" ? uPlot.tzDate(new Date(ms), "Etc/UTC") : new Date(ms)),
        legend: { show: false },
        scales: { x: { range: () => this.board.range() }, y: { range: (_, low, high) => this.room(low, high) } },
        axes: [
          { ...axis, values: ticks, space: 64, size: 40 },
          { ...axis, values: (_, splits, __, ___, step) => splits.map((v) => iot.number(v, digits(step), digits(step), Math.abs(v) >= 1e16 || (v !== 0 && step < 1e-6))), space: 34, size: (_, values) => Math.max(44, 14 + 7 * Math.max(0, ...(values ?? []).map((v) => v.length))) },
        ],
        cursor: {
          sync: { key: this.board.key, scales: ["x", null], setSeries: false, filters: { pub: (kind) => kind === "mousemove" || kind === "mouseleave" } },
          y: false, points: { size: 7 }, // the crosshair is everybody's, a selection is one chart's
          dataIdx: (_, row, idx) => this.near(row, idx),
          drag: { x: true, y: false, setScale: false, dist: 6 },
        },
        hooks: { drawClear: [() => this.shade()], draw: [() => this.rule()], setCursor: [() => this.point()], setSelect: [() => this.selected()] },
      };
    }

    // Some room above and below what is drawn and its lines; a flat course stays flat.
    room(low, high) {
      const lines = this.board.linesOf(this.field).map((v) => iot.convert(v, this.unit));
      [low, high] = [Math.min(low ?? Infinity, ...lines), Math.max(high ?? -Infinity, ...lines)];
      const least = this.unit ? 10 ** -Math.min(this.decimals, 1) * 2 : Math.max(Math.abs(low), Math.abs(high)) / 50; // of what is not known
      const span = Math.max(high - low, least, Math.abs(high) * 1e-6) || 1;
      const middle = (low + high) / 2;
      const bottom = middle - span * 0.56;
      return [low >= 0 && bottom < 0 ? 0 : bottom, middle + span * 0.56];
    }

    shade() { // the nights, behind everything
      const { ctx, bbox } = this.u;
      ctx.save();
      ctx.fillStyle = css("--night");
      for (const [from, to] of this.board.nights) {
        const [left, right] = [from, to].map((ms) => Math.min(Math.max(this.u.valToPos(ms, "x", true), bbox.left), bbox.left + bbox.width));
        ctx.fillRect(left, bbox.top, right - left, bbox.height);
      }
      ctx.restore();
    }

    rule() { // the visitor's lines
      const { ctx, bbox } = this.u;
      ctx.save();
      ctx.strokeStyle = ctx.fillStyle = css("--bad");
      ctx.lineWidth = devicePixelRatio;
      ctx.setLineDash([5 * devicePixelRatio, 4 * devicePixelRatio]);
      ctx.font = `${11 * devicePixelRatio}px ${css("--bs-font-sans-serif")}`;
      for (const value of this.board.linesOf(this.field)) {
        const y = this.u.valToPos(iot.convert(value, this.unit), "y", true);
        ctx.beginPath();
        ctx.moveTo(bbox.left, y);
        ctx.lineTo(bbox.left + bbox.width, y);
        ctx.stroke();
        ctx.textAlign = "right";
        const above = y > bbox.top + 18 * devicePixelRatio;
        ctx.fillText(iot.withUnit(value, this.unit, this.decimals), bbox.left + bbox.width - 4 * devicePixelRatio, y + (above ? -4 : 13) * devicePixelRatio);
      }
      ctx.restore();
    }

    // Of a row of the data the place nearest to `idx` that has a value and is not plainly elsewhere; null without one.
    near(row, idx) {
      const [t, values] = [this.u.data[0], this.u.data[row]];
      const x = this.u.cursor.left, apart = (at) => Math.abs(this.u.valToPos(t[at], "x") - x);
      const has = (at) => values[at] !== null && values[at] !== undefined;
      const found = [idx, idx - 1, idx + 1, idx - 2, idx + 2, idx - 3, idx + 3].filter((at) => at >= 0 && at < t.length && has(at));
      const best = found.reduce((a, b) => (a === null || apart(b) < apart(a) ? b : a), null);
      return best !== null && apart(best) <= REACH ? best : null;
    }

    point() { // what stands under the crosshair, on every chart of the board
      const { idxs, left } = this.u.cursor;
      const said = left < 0 ? [] : this.reading.at(idxs);
      this.tip.hidden = !said.length;
      if (this.tip.hidden) return;
      const moment = document.createElement("span");
      moment.className = "muted";
      moment.textContent = this.reading.when(said[0].t);
      this.tip.replaceChildren(moment, ...said.map(({ name, words, n }) => {
        const line = document.createElement("span");
        line.append(this.board.several ? iot.swatch(this.colour, n) : "", name ? `${name} ` : "", Object.assign(document.createElement("b"), { textContent: words }));
        return line;
      }));
      const width = this.u.over.clientWidth;
      this.tip.classList.toggle("is-left", left > width / 2);
      this.tip.style.left = `${Math.round(left)}px`;
    }

    selected() {
      const { left, width } = this.u.select;
      if (width < 6) return;
      const [start, stop] = [left, left + width].map((x) => this.u.posToVal(x, "x"));
      this.u.setSelect({ left: 0, width: 0, top: 0, height: 0 }, false);
      this.board.zoom(start, stop);
    }

    follow() { this.u?.setData(this.u.data); } // the range has moved, the data not yet

    fit() {
      if (this.u && this.plot.clientWidth) this.u.setSize({ width: this.plot.clientWidth, height: this.plot.clientHeight });
    }

    // The chart as a picture, with its name, on the colour of the page.
    picture() {
      const { canvas } = this.u.ctx, head = 28 * devicePixelRatio;
      const sheet = Object.assign(document.createElement("canvas"), { width: canvas.width, height: canvas.height + head });
      const ctx = sheet.getContext("2d");
      ctx.fillStyle = css("--surface");
      ctx.fillRect(0, 0, sheet.width, sheet.height);
      ctx.fillStyle = css("--bs-body-color");
      ctx.font = `600 ${13 * devicePixelRatio}px ${css("--bs-font-sans-serif")}`;
      ctx.fillText(`${this.board.title} · ${this.label}${this.unit ? `, ${iot.chosen(this.unit)}` : ""}`, 12 * devicePixelRatio, 19 * devicePixelRatio);
      ctx.drawImage(canvas, 0, head);
      sheet.toBlob((blob) => {
        const link = Object.assign(document.createElement("a"), { href: URL.createObjectURL(blob), download: `${this.board.title}-${this.field}.png` });
        link.click();
        setTimeout(() => URL.revokeObjectURL(link.href), 1000);
      });
    }
  };
})();
