// The charts of a page: one range, one crosshair, one question to the center; zooming asks for more detail.
"use strict";
(() => {
  const { iot } = window;
  const asJson = { headers: { Accept: "application/json" } };
  const WHOLE = 20; // after so many answers with what is new comes one with all
  const SPANS = { "15m": 900, "1h": 3600, "6h": 21600, "24h": 86400, "7d": 604800, "30d": 2592000, "90d": 7776000, "1y": 31536000 };

  const keyOf = (curve) => `${curve.device}\n${curve.field}\n${curve.sensor}`;
  // What was there up to `from` within the new range, and after it what is new.
  const joined = (old, fresh) => {
    const found = new Map(fresh.curves.map((curve) => [keyOf(curve), curve]));
    for (const before of old.curves) {
      const now = found.get(keyOf(before));
      const kept = before.t.findIndex((t) => t >= fresh.start), end = before.t.findLastIndex((t) => t <= fresh.from) + 1;
      const part = (name) => [...(kept < 0 ? [] : before[name].slice(kept, end)), ...(now?.[name] ?? [])];
      const curve = { ...before, t: part("t"), v: part("v") };
      for (const name of ["low", "high", "n"]) if (before[name]) curve[name] = part(name);
      found.set(keyOf(before), curve);
    }
    return { ...fresh, curves: [...found.values()].filter((curve) => curve.t.length) };
  };

  iot.Board = class {
    constructor(root, number) {
      this.root = root;
      this.key = `board-${number}`; // one crosshair for its charts
      this.fixed = root.dataset.fixed !== undefined; // of a query: its answer, once
      this.kept = root.dataset.kept !== undefined; // its view is the page's address
      this.device = root.dataset.device ?? "";
      this.title = this.device || document.title.split(" · ")[0];
      this.note = root.querySelector("[data-chart-note]");
      this.view = this.kept ? iot.view.read(location.search) : iot.view.read("");
      this.view.range ??= root.dataset.range;
      this.sensors = [];
      this.nights = [];
      this.ticket = 0;
      this.charts = [...root.querySelectorAll(".chart")].map((chart) => new iot.Chart(chart, this));
      for (const button of root.querySelectorAll("[data-pick]")) button.addEventListener("click", () => this.pick(button));
      for (const kind of ["themechange", "prefschange"]) document.addEventListener(kind, () => this.charts.forEach((chart) => chart.restyle()));
      document.addEventListener("visibilitychange", () => { if (!document.hidden) this.load(); });
      if (this.kept) new iot.Controls(this);
      addEventListener("beforeprint", () => this.charts.forEach((chart) => chart.draw())); // also those below the screen
      addEventListener("popstate", () => { if (this.kept) this.restore(); });
      this.arrange();
      if (root.dataset.first) { // came with the page: drawn at once
        const { fields, ...data } = JSON.parse(root.dataset.first);
        this.take(data, this.charts.filter((chart) => fields.includes(chart.field)));
      }
      this.load();
    }

    // ---- what the charts ask
    range() { return this.view.zoom ?? (this.data ? [this.data.start, this.data.stop] : [Date.now() - 1000 * (SPANS[this.view.range] ?? 86400), Date.now()]); }
    linesOf(field) { return this.view.lines[field] ?? []; }
    sensorKey(curve) { return `${curve.device ?? this.device}\n${curve.sensor ?? ""}`; }
    place(curve) { return Math.max(this.sensors.indexOf(this.sensorKey(curve)), 0); }
    get coarse() { return this.data?.every >= 60; } // no second tells anything then
    get fields() { return this.view.fields.filter((field) => this.charts.some((chart) => chart.field === field)); } // named and here; none: all
    get several() { return this.sensors.length > 1; }
    name(curve) {
      const device = curve.device ?? this.device;
      const own = this.sensors.filter((key) => key.startsWith(`${device}\n`)).length;
      if (!this.view.beside.length) return curve.sensor || device;
      return own > 1 && curve.sensor ? `${device} · ${curve.sensor}` : device;
    }

    // ---- what changes the view
    change(part) {
      Object.assign(this.view, part);
      if (this.kept) history.pushState(null, "", `?${iot.view.write(this.view)}`);
      this.changed();
    }
    changed() {
      this.root.dispatchEvent(new CustomEvent("viewchange"));
      this.draw(this.charts);
      this.load();
    }
    restore() {
      this.view = iot.view.read(location.search);
      this.view.range ??= this.root.dataset.range;
      this.changed();
    }
    zoom(start, stop) { this.change({ zoom: start === null ? null : [Math.floor(start), Math.ceil(stop)] }); }
    line(field, values) { this.change({ lines: { ...this.view.lines, [field]: values } }); }
    follow(start, stop) { // fingers move: the address and the data come when they lift
      this.view.zoom = [start, stop];
      cancelAnimationFrame(this.frame);
      this.frame = requestAnimationFrame(() => this.charts.forEach((chart) => chart.follow()));
    }
    pick(button) {
      for (const other of this.root.querySelectorAll("[data-pick]")) other.setAttribute("aria-pressed", String(other === button));
      for (const chart of this.charts) chart.arrange(chart.field === button.dataset.pick);
      this.load();
    }

    // ---- data
    params(width) {
      const params = new URLSearchParams([this.device, ...this.view.beside].map((device) => ["device", device]));
      if (this.view.zoom) { params.set("start", Math.floor(this.view.zoom[0])); params.set("stop", Math.ceil(this.view.zoom[1])); }
      else params.set("range", this.view.range);
      params.set("width", width);
      return params;
    }

    async load() {
      clearTimeout(this.timer);
      const ticket = ++this.ticket;
      const wanted = this.charts.filter((chart) => chart.wanted);
      const params = this.params(Math.round(wanted[0]?.plot.clientWidth || 900));
      const csv = this.root.querySelector("[data-csv]");
      if (csv) csv.href = `${csv.dataset.csv}?${new URLSearchParams([...params, ...this.fields.map((field) => ["field", field])])}`;
      for (const chart of wanted) params.append("field", chart.field);
      const question = String(params);
      const more = this.asked === question && this.since > 0 && this.parts < WHOLE; // late points come with the whole
      if (more) params.set("since", this.since);
      let again = 5;
      try {
        const data = await this.ask(this.fixed ? this.root.dataset.charts : `${this.root.dataset.charts}?${params}`);
        if (ticket !== this.ticket) return;
        this.parts = more ? this.parts + 1 : 0;
        Object.assign(this, { asked: question, since: data.stop });
        this.take(more && data.every === this.data.every ? joined(this.data, data) : data, wanted);
        again = this.fixed ? null : data.again;
      } catch (error) {
        if (ticket !== this.ticket) return;
        if (error.final) { // the address asks for what cannot be: asking again is no better
          again = null;
          this.say(`This cannot be drawn: ${error.message}.`);
          for (const chart of wanted) chart.set([], "Not drawn");
        } else this.say(`The charts could not be loaded (${error.message}): trying again.`);
      }
      if (again !== null && !document.hidden) this.timer = setTimeout(() => this.load(), again * 1000);
    }

    async ask(url) {
      const answer = await fetch(url, asJson);
      const data = await answer.json();
      if (!answer.ok) throw Object.assign(new Error(data.message), { final: answer.status === 400 });
      return data;
    }

    take(data, charts) {
      this.data = data;
      this.sensors = [...new Set(data.curves.map((curve) => this.sensorKey(curve)))].sort();
      // This device's sensors come first, those beside it after.
      this.sensors = [...this.sensors.filter((key) => key.startsWith(`${this.device}\n`)), ...this.sensors.filter((key) => !key.startsWith(`${this.device}\n`))];
      const points = data.curves.reduce((sum, curve) => sum + curve.t.length, 0);
      const left = data.left_out ? ` ${data.left_out} curves are left out: choose fewer charts or devices.` : "";
      const absent = this.view.beside.filter((device) => !data.curves.some((curve) => curve.device === device));
      this.say((!points ? "No point in this range." : data.every_text ? `Each point is the mean of ${data.every_text}; shaded from the least to the greatest.${left}` : `Every point as it was measured.${left}`) + (points && absent.length ? ` Nothing of ${absent.join(", ")}.` : ""));
      this.draw(charts);
    }

    arrange() {
      if (this.kept) for (const chart of this.charts) chart.arrange(!this.fields.length || this.fields.includes(chart.field));
    }

    say(text) { if (this.note && this.note.textContent !== text) this.note.textContent = text; }

    draw(charts) {
      const [start, stop] = this.range();
      const { lat, lon } = this.root.dataset;
      this.nights = lat && lon ? iot.nights(start, stop, Number(lat), Number(lon)) : [];
      this.arrange();
      if (!this.data) return;
      for (const chart of charts) chart.set(this.data.curves.filter((curve) => curve.field === chart.field));
      document.body.dataset.drawn = String(Number(document.body.dataset.drawn ?? 0) + 1);
    }
  };

  addEventListener("DOMContentLoaded", () => {
    [...document.querySelectorAll("[data-charts]")].forEach((root, number) => new iot.Board(root, number));
  });
})();
