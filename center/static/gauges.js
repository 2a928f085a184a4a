// Last values and gauges: every few seconds while someone looks, and only what changed.
"use strict";
(() => {
  const { iot } = window;
  const nice = (value, up) => {
    const step = 10 ** Math.floor(Math.log10(Math.abs(value) || 1)) / 2;
    return (up ? Math.ceil : Math.floor)(value / step) * step;
  };

  // The scale widens with the value, and its labels with it.
  iot.dial = (gauge) => {
    const value = Number(gauge.querySelector("[data-last]").dataset.v);
    const low = Math.min(Number(gauge.dataset.low), value < Number(gauge.dataset.low) ? nice(value, false) : Infinity);
    const high = Math.max(Number(gauge.dataset.high), value > Number(gauge.dataset.high) ? nice(value, true) : -Infinity);
    gauge.querySelector(".gauge-arc").setAttribute("stroke-dasharray", `${(((value - low) / (high - low)) * 100).toFixed(1)} 200`);
    gauge.querySelectorAll(".gauge-ends [data-v]").forEach((end, i) => {
      end.dataset.v = i ? high : low;
      iot.show(end);
    });
  };

  const show = (root, data) => {
    if (data.stale_after) root.dataset.staleAfter = data.stale_after; // it changes with the interval
    for (const last of data.last) {
      for (const element of root.querySelectorAll(`[data-last="${CSS.escape(last.field)}"][data-sensor="${CSS.escape(last.key)}"]`)) {
        element.dataset.timeNs = last.time * 1e6;
        if (typeof last.value === "number") { element.dataset.v = last.value; iot.show(element); }
        else if (element.textContent !== last.text) element.textContent = last.text;
        const time = element.closest("[data-measured]")?.querySelector("time");
        if (time) time.dateTime = new Date(last.time).toISOString();
        const gauge = element.closest(".gauge");
        if (gauge) iot.dial(gauge);
      }
    }
    const state = root.querySelector("[data-state] .state");
    if (state && data.state) {
      state.className = `state state-${data.state.name}`;
      delete state.dataset.was; // it is known again (live.js)
      if (state.lastChild.textContent !== data.state.label) state.lastChild.textContent = data.state.label;
    }
    const time = root.querySelector("[data-seen] time");
    if (time && data.seen) {
      time.dateTime = new Date(data.seen).toISOString();
      const exact = root.querySelector("[data-seen] [data-exact]");
      if (exact) exact.dataset.exact = data.seen;
      iot.freshen();
    }
  };

  addEventListener("DOMContentLoaded", () => {
    for (const gauge of document.querySelectorAll(".gauge")) iot.dial(gauge);
    for (const root of document.querySelectorAll("[data-live-values]")) {
      let etag;
      const tick = async () => {
        if (!document.hidden) {
          try {
            const answer = await fetch(root.dataset.liveValues, { headers: { Accept: "application/json", ...(etag && { "If-None-Match": etag }) } });
            if (answer.ok) { // 304: nothing changed
              etag = answer.headers.get("ETag");
              show(root, await answer.json());
            }
          } catch { /* away for a moment */ }
        }
        setTimeout(tick, Math.min(Math.max(Number(root.dataset.staleAfter) / 6, 2), 5) * 1000); // half the interval that it reports at
      };
      tick();
    }
  });
})();
