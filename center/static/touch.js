// Fingers on a chart: one moves it along, two stretch it; up and down still scroll the page.
"use strict";
(() => {
  const LEAST = 10000; // ms: nobody looks closer than ten seconds

  // `range()` is what is shown; `show(start, stop)` follows the fingers, `done(start, stop)` is where they left it;
  // `tap(x)` where one touched, in pixels from the left.
  window.iot.touch = (element, { range, show, done, tap }) => {
    const fingers = new Map();
    let began = null; // the range and the fingers when their number last changed
    let moved = null, stretched = false;
    const at = (x) => (x - element.getBoundingClientRect().left) / element.clientWidth;
    const grip = () => {
      stretched ||= fingers.size > 1;
      began = fingers.size ? { range: moved ?? range(), x: [...fingers.values()] } : null;
    };
    element.addEventListener("pointerdown", (event) => {
      if (event.pointerType !== "touch" || fingers.size === 2) return;
      fingers.set(event.pointerId, at(event.clientX));
      grip();
    });
    element.addEventListener("pointermove", (event) => {
      if (!fingers.has(event.pointerId)) return;
      fingers.set(event.pointerId, at(event.clientX));
      const [start, stop] = began.range, span = stop - start;
      const now = [...fingers.values()];
      if (now.length === 1) {
        if (!moved && Math.abs(now[0] - began.x[0]) < 0.02) return; // a tap reads a value
        const by = (began.x[0] - now[0]) * span;
        moved = [start + by, stop + by];
      } else {
        const apart = Math.max(Math.abs(now[1] - now[0]), 0.02);
        const wide = Math.max(span * Math.abs(began.x[1] - began.x[0]) / apart, LEAST);
        const held = start + ((began.x[0] + began.x[1]) / 2) * span; // stays under the middle of the fingers
        const left = held - ((now[0] + now[1]) / 2) * wide;
        moved = [left, left + wide];
      }
      show(...moved);
    });
    const lift = (event) => {
      if (!fingers.delete(event.pointerId)) return;
      if (fingers.size) return grip();
      if (moved) done(...moved);
      else if (event.type === "pointerup" && !stretched) tap(at(event.clientX) * element.clientWidth);
      began = moved = null;
      stretched = false;
    };
    element.addEventListener("pointerup", lift);
    element.addEventListener("pointercancel", lift);
  };
})();
