// Charts and gauges: plotly draws them, the server aggregates to the width of the screen, zooming asks for more detail.
"use strict";
(() => {
  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const colour = (name) => css(`--c-${name}`);
  const font = () => ({ family: css("--bs-font-sans-serif"), size: 12, color: css("--bs-secondary-color") });
  // plotly draws dates without a zone: moments are moved so that it shows the reader's clock.
  const shown = (ms) => ms - new Date(ms).getTimezoneOffset() * 60000;
  const moment = (text) => (typeof text === "number" ? text : new Date(String(text).replace(" ", "T")).getTime());
  const BAND_FROM = 300; // seconds: windows this long also show their minimum and maximum
  const asJson = { headers: { Accept: "application/json" } };
  const touch = matchMedia("(pointer: coarse)").matches; // there a drag scrolls the page
  const config = { // by name: what plotly adds with a version stays out
    displaylogo: false, responsive: true, showTips: false, displayModeBar: touch ? false : "hover", toImageButtonOptions: { scale: 2 },
    modeBarButtons: [["toImage"], ["zoom2d", "pan2d"], ["zoomIn2d", "zoomOut2d", "resetScale2d"]],
  };

  function layout(chart, range) {
    const axis = { gridcolor: css("--grid"), zeroline: false, linecolor: css("--grid"), tickfont: font(), fixedrange: false };
    const unit = chart.dataset.unit;
    return {
      margin: { l: 52, r: 12, t: 8, b: 32 }, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: font(),
      hovermode: "x", separators: ".\u202f", dragmode: touch ? false : "zoom", showlegend: chart.curves.length > 1, legend: { orientation: "h", y: 1.12, x: 0 },
      hoverlabel: { bgcolor: css("--surface"), bordercolor: css("--bs-border-color"), font: { ...font(), color: css("--bs-body-color") } },
      modebar: { bgcolor: "rgba(0,0,0,0)", color: css("--bs-secondary-color"), activecolor: css("--accent") },
      xaxis: { ...axis, type: "date", range, showspikes: true, spikemode: "across", spikethickness: 1, spikedash: "solid", spikecolor: css("--control-border"), hoverformat: "%-d %b %Y, %H:%M:%S", tickformatstops: [
        { dtickrange: [null, 60000], value: "%H:%M:%S" }, { dtickrange: [60000, 86400000], value: "%H:%M\n%-d %b" },
        { dtickrange: [86400000, 2592000000], value: "%-d %b\n%Y" }, { dtickrange: [2592000000, null], value: "%b %Y" }] },
      yaxis: { ...axis, fixedrange: true, nticks: 6, automargin: true, ticksuffix: unit === "°C" ? "°" : "", tickformat: unit === "ppm" || unit === "ppb" || unit === "hPa" ? ",~r" : "" },
    };
  }

  const faint = (hex) => `${hex}2b`; // the same colour, one sixth opaque

  const families = ["temperature", "humidity", "pressure", "co2", "tvoc", "other"];

  // From minimum to maximum and back, a closed shape for each run between gaps.
  function band(curve, x, paint) {
    const xs = [], ys = [];
    let run = [];
    const close = () => {
      xs.push(...run.map((i) => x[i]), ...run.toReversed().map((i) => x[i]), null);
      ys.push(...run.map((i) => curve.high[i]), ...run.toReversed().map((i) => curve.low[i]), null);
      run = [];
    };
    x.forEach((_, i) => { if (curve.low[i] === null) close(); else run.push(i); });
    close();
    return { type: "scatter", mode: "lines", x: xs, y: ys, fill: "toself", fillcolor: faint(paint), line: { width: 0 }, hoverinfo: "skip", showlegend: false };
  }

  function traces(chart) {
    const first = families.indexOf(chart.dataset.colour);
    const unit = chart.dataset.unit ? ` ${chart.dataset.unit}` : "";
    const format = `,.${chart.dataset.decimals}f`;
    return chart.curves.flatMap((curve, i) => {
      const x = curve.t.map(shown);
      const paint = colour(families[(first + i) % families.length]);
      const banded = curve.low && curve.high;
      const range = banded ? ` (%{customdata[0]:${format}} to %{customdata[1]:${format}})` : "";
      return [...(banded ? [band(curve, x, paint)] : []), {
        type: "scatter", mode: curve.t.length < 3 ? "lines+markers" : "lines",
        name: (curve.sensor || chart.dataset.label).replaceAll("<", "‹"), // plotly reads tags in names
        x, y: curve.v, connectgaps: false, customdata: banded ? curve.low.map((low, k) => [low, curve.high[k]]) : undefined,
        line: { color: paint, width: 1.75 },
        hovertemplate: `%{y:${format}}${range}${unit}<extra>${chart.curves.length > 1 ? "%{fullData.name}" : ""}</extra>`,
      }];
    });
  }

  class Board {
    constructor(root) {
      this.root = root;
      this.range = root.dataset.range;
      this.zoom = null;
      this.charts = [...root.querySelectorAll(".chart")];
      this.note = root.querySelector("[data-chart-note]");
      this.ticket = 0;
      this.timer = 0;
      for (const chart of this.charts) chart.curves = [];
      for (const button of root.querySelectorAll("[data-pick]")) button.addEventListener("click", () => this.pick(button));
      for (const button of root.querySelectorAll("[data-set-range]")) button.addEventListener("click", () => this.setRange(button));
      root.querySelector("[data-reset]")?.addEventListener("click", () => this.zoomTo(null));
      document.addEventListener("themechange", () => this.draw());
      document.addEventListener("visibilitychange", () => { if (!document.hidden) this.load(); });
      this.load();
    }

    visible() { return this.charts.filter((chart) => !chart.hidden); }

    pick(button) { // the charts of a fixed board are all there: only drawn when first seen
      for (const other of this.root.querySelectorAll("[data-pick]")) other.setAttribute("aria-pressed", String(other === button));
      for (const chart of this.charts) chart.hidden = chart.dataset.field !== button.dataset.pick;
      this.load();
    }

    setRange(button) {
      for (const other of this.root.querySelectorAll("[data-set-range]")) other.setAttribute("aria-pressed", String(other === button));
      this.range = button.dataset.setRange;
      history.replaceState(null, "", `?range=${this.range}`);
      this.zoomTo(null);
    }

    zoomTo(range) {
      this.zoom = range;
      const reset = this.root.querySelector("[data-reset]");
      if (reset) reset.hidden = range === null;
      this.load();
    }

    params() {
      if (this.root.dataset.fixed !== undefined) return new URLSearchParams();
      const params = new URLSearchParams({ width: String(Math.round(this.visible()[0]?.clientWidth || 900)) });
      if (this.zoom) { params.set("start", Math.floor(this.zoom[0])); params.set("stop", Math.ceil(this.zoom[1])); } else params.set("range", this.range);
      return params;
    }

    async load() {
      clearTimeout(this.timer);
      const ticket = ++this.ticket;
      const params = this.params();
      const csv = this.root.querySelector("[data-csv]");
      if (csv) csv.href = `${csv.dataset.csv}?${params}`;
      for (const chart of this.visible()) params.append("field", chart.dataset.field);
      let wait = 5;
      try {
        const fixed = this.root.dataset.fixed !== undefined;
        const data = fixed ? await (await fetch(this.root.dataset.charts, asJson)).json() : await this.ask(params);
        if (ticket !== this.ticket) return;
        this.data = data;
        for (const chart of this.charts) chart.curves = data.curves.filter((c) => c.field === chart.dataset.field);
        const band = !fixed && data.every >= BAND_FROM && data.curves.length > 0;
        const key = `${this.zoom ?? this.range} ${this.visible().map((chart) => chart.dataset.field)}`;
        if (!band || this.shaded !== key) this.draw(); // again: only once the band is here, so that it does not flicker
        wait = data.every === null ? 2 : Math.min(Math.max(data.every, 2), 60);
        const points = data.curves.reduce((sum, c) => sum + c.t.length, 0);
        const hint = touch ? "" : " Drag across a chart to zoom.";
        this.say(points ? (data.every_text ? `Mean of every ${data.every_text}${band ? ", the range from minimum to maximum shaded" : ""}.${hint}` : `Every point.${hint}`) : "No point in this range.");
        if (band) await this.shade(data, params, ticket);
        this.shaded = band ? key : null;
      } catch (error) {
        if (ticket !== this.ticket) return;
        this.say(`The charts could not be loaded (${error.message}): trying again.`);
      }
      if (!this.zoom && !document.hidden && this.root.dataset.fixed === undefined) this.timer = setTimeout(() => this.load(), wait * 1000);
    }

    // The same windows again, their minimum and maximum: after the mean, which people wait for.
    async shade(data, params, ticket) {
      const same = new URLSearchParams([...params].filter(([name]) => name !== "range" && name !== "start" && name !== "stop"));
      same.set("start", data.start);
      same.set("stop", data.stop);
      const [low, high] = await Promise.all(["min", "max"].map((fn) => this.ask(same, fn)));
      if (ticket !== this.ticket) return;
      const find = (edge, curve) => edge.curves.find((c) => c.field === curve.field && c.sensor === curve.sensor && c.t.length === curve.t.length);
      for (const curve of data.curves) [curve.low, curve.high] = [find(low, curve)?.v, find(high, curve)?.v];
      this.draw();
    }

    async ask(params, fn = "mean") {
      const answer = await fetch(`${this.root.dataset.charts}?${params}&fn=${fn}`, asJson);
      const data = await answer.json();
      if (!answer.ok) throw new Error(data.message);
      return data;
    }

    say(text) { if (this.note && this.note.textContent !== text) this.note.textContent = text; }

    draw() {
      if (!this.data) return;
      const range = [shown(this.data.start), shown(this.data.stop)];
      for (const chart of this.visible()) {
        Plotly.react(chart, traces(chart), layout(chart, range), config);
        if (chart.heard) continue;
        chart.heard = true;
        if (this.root.dataset.fixed !== undefined) continue;
        chart.on("plotly_relayout", (change) => {
          if (change["xaxis.range[0]"] !== undefined) this.zoomTo([moment(change["xaxis.range[0]"]), moment(change["xaxis.range[1]"])]);
          else if (change["xaxis.autorange"]) this.zoomTo(null);
        });
        chart.on("plotly_doubleclick", () => { this.zoomTo(null); return false; });
      }
      document.body.dataset.drawn = String(Number(document.body.dataset.drawn ?? 0) + 1);
    }
  }

  class Live { // last values, gauges, state: every two seconds while someone looks
    constructor(root) {
      this.root = root;
      this.gauges = [...root.querySelectorAll(".gauge-plot")];
      document.addEventListener("themechange", () => this.gauges.forEach((g) => this.draw(g)));
      for (const gauge of this.gauges) { gauge.value = Number(gauge.dataset.value); this.draw(gauge); }
      this.tick();
    }

    draw(gauge) {
      const d = gauge.dataset;
      const low = Math.min(Number(d.low), gauge.value), high = Math.max(Number(d.high), gauge.value);
      Plotly.react(gauge, [{
        type: "indicator", mode: "gauge", value: gauge.value,
        gauge: {
          axis: { range: [low, high], tickvals: [], ticks: "" }, bar: { color: colour(d.colour), thickness: 1, line: { width: 0 } },
          bgcolor: css("--gauge"), borderwidth: 0,
        },
      }], { margin: { l: 4, r: 4, t: 4, b: 2 }, paper_bgcolor: "rgba(0,0,0,0)", font: font() }, { displayModeBar: false, responsive: true, staticPlot: true });
    }

    async tick() {
      if (!document.hidden) {
        try {
          const answer = await fetch(this.root.dataset.liveValues, asJson);
          if (answer.ok) this.show(await answer.json());
        } catch { /* away for a moment */ }
      }
      setTimeout(() => this.tick(), 2000);
    }

    show(data) {
      for (const last of data.last) {
        for (const element of this.root.querySelectorAll(`[data-last="${CSS.escape(last.field)}"][data-sensor="${CSS.escape(last.sensor)}"]`)) if (element.textContent !== last.text) element.textContent = last.text;
      }
      for (const gauge of this.gauges) {
        const last = data.last.find((l) => l.field === gauge.dataset.field && l.sensor === gauge.dataset.sensor);
        if (last && last.value !== gauge.value) { gauge.value = last.value; this.draw(gauge); }
      }
      const state = this.root.querySelector("[data-state] .state");
      if (state && data.state) {
        state.className = `state state-${data.state.name}`;
        if (state.lastChild.textContent !== data.state.label) state.lastChild.textContent = data.state.label;
      }
      const time = this.root.querySelector("[data-seen] time");
      if (time && data.seen) {
        time.dateTime = new Date(data.seen).toISOString();
        const exact = this.root.querySelector("[data-seen] [data-exact]");
        if (exact) exact.dataset.exact = data.seen;
        window.iot.freshen();
      }
    }
  }

  addEventListener("DOMContentLoaded", () => {
    for (const root of document.querySelectorAll("[data-charts]")) new Board(root);
    for (const root of document.querySelectorAll("[data-live-values]")) new Live(root);
  });
})();
