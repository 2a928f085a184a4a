// What a board shows, as its address says it: range or start and stop, fields, devices beside it, lines. So a view can
// be shared, kept, gone back from and taken over to another device.
"use strict";
(() => {
  const read = (search) => {
    const asked = new URLSearchParams(search);
    const [start, stop] = ["start", "stop"].map((name) => Number(asked.get(name) ?? NaN));
    const lines = {};
    for (const text of asked.getAll("line")) {
      const [, field, value] = /^(.+):(-?[\d.]+(?:e[+-]?\d+)?)$/.exec(text) ?? [];
      if (field && Number.isFinite(Number(value))) (lines[field] ??= []).push(Number(value));
    }
    return {
      range: asked.get("range"), zoom: stop > start ? [start, stop] : null,
      fields: asked.getAll("field"), beside: [...new Set(asked.getAll("with"))], lines,
    };
  };

  const write = (view) => {
    const said = new URLSearchParams();
    if (view.zoom) { said.set("start", Math.round(view.zoom[0])); said.set("stop", Math.round(view.zoom[1])); }
    else if (view.range) said.set("range", view.range);
    for (const field of view.fields) said.append("field", field);
    for (const device of view.beside) said.append("with", device);
    for (const [field, values] of Object.entries(view.lines)) for (const value of values) said.append("line", `${field}:${value}`);
    return said;
  };

  window.iot.view = { read, write };
})();
