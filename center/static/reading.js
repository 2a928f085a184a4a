// Reading a chart without seeing it, and more exactly: minimum, mean and maximum with their times, the values by arrow
// keys and as a table, lines at values of one's own.
"use strict";
(() => {
  const { iot } = window;
  const ROWS = 300, HOUR = 3600000, DAY = 24 * HOUR;
  const make = (tag, properties = {}, ...children) => {
    const element = Object.assign(document.createElement(tag), properties);
    element.append(...children);
    return element;
  };

  // A short piece of a sensor's line: its shade and its dashes.
  iot.swatch = (quantity, n) => {
    const { stroke, dash } = iot.paint(quantity, n);
    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    const line = document.createElementNS("http://www.w3.org/2000/svg", "path");
    for (const [name, value] of Object.entries({ viewBox: "0 0 22 6", width: 22, height: 6, "aria-hidden": "true", class: "line-sample" })) svg.setAttribute(name, value);
    for (const [name, value] of Object.entries({ d: "M0 3H22", stroke, "stroke-width": 2.5, "stroke-dasharray": dash.join(" ") || "none" })) line.setAttribute(name, value);
    svg.append(line);
    return svg;
  };

  // Least, mean and greatest of a curve, with their moments; of windows the least and greatest of their points.
  iot.figures = (curve) => {
    let low = null, high = null, sum = 0, count = 0;
    curve.v.forEach((v, i) => {
      if (v === null) return;
      const weight = curve.n?.[i] ?? 1; // the points of the window
      sum += v * weight;
      count += weight;
      const [least, most] = [curve.low?.[i] ?? v, curve.high?.[i] ?? v];
      if (low === null || least < low.v) low = { v: least, t: curve.t[i] };
      if (high === null || most > high.v) high = { v: most, t: curve.t[i] };
    });
    return count ? { low, high, mean: sum / count } : null;
  };

  const TENDENCY = [[6, "very rapidly"], [3.5, "quickly"], [1.5, ""], [0.1, "slowly"]]; // hPa in 3 h: the Met Office's words
  const changeIn3h = (curve) => { // null without a point near their beginning
    const last = curve.v.findLastIndex((v) => v !== null), began = curve.t[last] - 3 * HOUR;
    let best = null;
    curve.t.forEach((t, i) => { if (curve.v[i] !== null && (best === null || Math.abs(t - began) < Math.abs(curve.t[best] - began))) best = i; });
    return Math.abs(curve.t[best] - began) <= HOUR / 2 ? curve.v[last] - curve.v[best] : null;
  };
  const tendency = (change) => {
    if (Math.abs(change) < 0.1) return "Steady";
    const [, how] = TENDENCY.find(([least]) => Math.abs(change) > least) ?? [0, "slowly"];
    return `${change > 0 ? "Rising" : "Falling"}${how ? ` ${how}` : ""}`;
  };

  iot.Reading = class {
    constructor(chart) {
      this.chart = chart;
      this.side = make("div", { className: "chart-side" });
      this.table = make("details", { className: "chart-more" }, make("summary", { textContent: "Values as a table" }));
      this.rows = make("div", { className: "scroll-x result-rows", tabIndex: 0 });
      this.rows.setAttribute("role", "region");
      this.rows.setAttribute("aria-label", `Values of ${chart.label}`);
      this.table.append(this.rows);
      this.table.addEventListener("toggle", () => this.fill());
      const foot = make("div", { className: "chart-foot" }, this.table);
      if (!chart.board.fixed) foot.append(this.lines());
      const save = make("button", { type: "button", className: "link-button", textContent: "Save as picture" });
      save.addEventListener("click", () => chart.u && chart.picture());
      foot.append(save);
      chart.root.append(this.side, foot);
      chart.plot.addEventListener("keydown", (event) => this.key(event));
      chart.plot.addEventListener("blur", () => chart.u?.setCursor({ left: -10, top: -10 }));
    }

    number(v) { return iot.withUnit(v, this.chart.unit, this.chart.decimals); }

    moment(ms) {
      const [start, stop] = this.chart.board.range();
      return stop - start <= DAY * 1.01 ? iot.clock(ms, stop - start < HOUR) : this.when(ms);
    }

    // Day and clock, with the year where the range has several. The end of a window of days is midnight in UTC of the
    // day after: what is said then are its days.
    when(ms) {
      const { board } = this.chart, every = 1000 * (board.data?.every ?? 0), [start, stop] = board.range();
      const day = (at) => iot.day(at, stop - start > 300 * DAY || undefined);
      if (every < DAY) return `${day(ms)}, ${iot.clock(ms, !board.coarse)}`;
      const began = (Math.ceil(ms / every) - 1) * every;
      const [from, to] = [day(began + DAY / 2), day(Math.max(ms - DAY / 2, began + DAY / 2))];
      return from === to ? from : `${from} to ${to}`;
    }

    draw(curves) {
      this.filled = curves;
      const { board, colour } = this.chart;
      this.side.replaceChildren(...curves.map((curve) => {
        const found = iot.figures(curve), list = make("dl");
        const add = (name, ...said) => list.append(make("dt", { textContent: name }), make("dd", {}, ...said));
        const when = (ms) => make("span", { className: "muted", textContent: this.moment(ms) });
        add("Max", this.number(found.high.v), " ", when(found.high.t));
        add("Mean", this.number(found.mean));
        add("Min", this.number(found.low.v), " ", when(found.low.t));
        const change = this.chart.unit === "hPa" ? changeIn3h(curve) : null;
        if (change !== null) add("3 h", `${tendency(change)}, ${change > 0 ? "+" : ""}${iot.withUnit(change, this.chart.unit, 1, { difference: true })}`);
        const head = board.several ? [make("h3", {}, iot.swatch(colour, board.place(curve)), board.name(curve))] : [];
        return make("div", { className: "chart-figures" }, ...head, list);
      }));
      this.fill();
      this.marks?.();
    }

    // The values at these places, one for each row of the data; of sensors that have none just there, nothing.
    at(idxs) {
      const { u, lines, board, unit, decimals } = this.chart;
      const said = [];
      for (const { curve, row, low } of lines) {
        const idx = idxs[row], v = idx === null || idx === undefined ? null : u.data[row][idx];
        if (v === null || v === undefined) continue;
        const shown = (value) => iot.withUnit(iot.revert(value, unit), unit, decimals);
        const band = low && u.data[low][idx] !== null && u.data[low][idx] !== u.data[low + 1][idx] ? ` (${shown(u.data[low][idx])} to ${shown(u.data[low + 1][idx])})` : "";
        said.push({ name: board.several ? board.name(curve) : "", words: shown(v) + band, n: board.place(curve), t: u.data[0][idx] });
      }
      return said;
    }

    key(event) {
      const { u } = this.chart;
      if (!u || event.ctrlKey || event.metaKey || event.altKey) return;
      if (event.key === "Escape") { u.setCursor({ left: -10, top: -10 }); return; }
      const t = u.data[0], last = t.length - 1;
      const some = (at) => this.chart.lines.some(({ row }) => u.data[row][at] !== null && u.data[row][at] !== undefined);
      const by = { ArrowLeft: -1, ArrowRight: 1, PageUp: -10, PageDown: 10, Home: -Infinity, End: Infinity }[event.key];
      if (by === undefined) return;
      event.preventDefault();
      const from = u.cursor.idx ?? (by < 0 ? last + 1 : -1);
      let idx = Math.min(Math.max(from + by, 0), last);
      while (idx > 0 && idx < last && !some(idx)) idx += by < 0 ? -1 : 1; // over the gaps
      u.setCursor({ left: u.valToPos(t[idx], "x"), top: 10 });
      const said = this.at(u.cursor.idxs).map(({ name, words }) => `${name ? `${name} ` : ""}${words}`).join("; ");
      iot.announce(`${this.when(t[idx])}: ${said || "no value"}`);
    }

    fill() {
      if (!this.table.open) return;
      const { board, unit, label } = this.chart;
      const row = (tag, cells) => make("tr", {}, ...cells.map((text, i) => make(tag, { textContent: text, className: i ? "right num" : "num", ...(tag === "th" ? { scope: "col" } : {}) })));
      const times = [...new Set(this.filled.flatMap((c) => c.t.filter((_, i) => c.v[i] !== null)))].sort((a, b) => b - a);
      const places = this.filled.map((c) => new Map(c.t.map((ms, i) => [ms, i])));
      const shown = times.slice(0, ROWS);
      const mixed = new Set(shown.map(iot.zone)).size > 1; // over a change to or from summer time
      const body = shown.map((ms) => row("td", [iot.exact(ms, mixed), ...this.filled.map((c, k) => {
        const v = c.v[places[k].get(ms)];
        return v === undefined || v === null ? "–" : iot.text(v, unit, this.chart.decimals);
      })]));
      const heads = this.filled.map((c) => `${board.several ? board.name(c) : label}${unit ? ` ${iot.chosen(unit)}` : ""}`);
      const table = make("table", { className: "table table-sm" }, make("thead", {}, row("th", [mixed ? "Time" : `Time ${iot.zone(times[0])}`, ...heads])), make("tbody", {}, ...body));
      this.rows.replaceChildren(table, ...(times.length > ROWS ? [make("p", { className: "muted small m-2", textContent: `The newest ${ROWS} of ${iot.number(times.length, 0)}; the CSV has all.` })] : []));
    }

    // Lines at values that the visitor cares for: kept in the address.
    lines() {
      const { board, field, unit, label } = this.chart;
      const input = make("input", { type: "number", step: "any", className: "form-control form-control-sm" });
      input.setAttribute("aria-label", `Draw a line in ${label} at`);
      const kept = make("span", { className: "chips" });
      const form = make("form", { className: "line-form" }, input, make("button", { type: "submit", className: "btn btn-quiet btn-sm", textContent: "Draw" }));
      form.addEventListener("submit", (event) => {
        event.preventDefault();
        if (input.value === "" || !Number.isFinite(input.valueAsNumber)) return;
        board.line(field, [...board.linesOf(field), Number(iot.revert(input.valueAsNumber, unit).toPrecision(7))]);
        input.value = "";
      });
      this.marks = () => kept.replaceChildren(...board.linesOf(field).map((value) => {
        const chip = make("button", { type: "button", className: "chip", textContent: `${this.number(value)} ×` });
        chip.setAttribute("aria-label", `Remove the line at ${this.number(value)}`);
        chip.addEventListener("click", () => board.line(field, board.linesOf(field).filter((other) => other !== value)));
        return chip;
      }));
      return make("details", { className: "chart-more" }, make("summary", { textContent: "Lines" }), form, kept);
    }
  };
})();
