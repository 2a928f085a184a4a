// Keeps the page live: the whole page is made on the device, this only puts its newest state in place. And it shows the
// value under the pointer.
"use strict";
const NS = "http://www.w3.org/2000/svg";
let pointer = null;

async function refresh() {
  if (document.hidden) return;
  try {
    const answer = await fetch("/", { cache: "no-store" });
    if (!answer.ok) throw new Error(String(answer.status));
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
    document.querySelector("main").replaceWith(fresh.querySelector("main"));
    point();
  } catch {
    document.querySelector("main").classList.add("stale");
    const verdict = document.querySelector(".verdict");
    verdict.textContent = "no answer from the agent; these are old values";
    verdict.className = "verdict failing";
  }
}

// The points of a chart: where, and the value as text.
function* drawn(chart) {
  for (const line of chart.querySelectorAll("polyline")) {
    const values = line.dataset.values.split(" ");
    const places = line.getAttribute("points").split(" ");
    for (let n = 0; n < values.length; n++) {
      const [x, y] = places[n].split(",").map(Number);
      yield { x, y, value: values[n] };
    }
  }
}

function ago(minutes) {
  if (minutes < 1) return "now";
  const hours = Math.floor(minutes / 60);
  return `${hours ? `${hours} h ` : ""}${minutes % 60} min ago`;
}

function element(name, attributes, text = "") {
  const made = document.createElementNS(NS, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.textContent = text;
  return made;
}

function point() {
  document.querySelector(".pointer")?.remove();
  const chart = pointer && document.elementFromPoint(pointer.x, pointer.y)?.closest("svg");
  if (!chart) return;
  const box = chart.getBoundingClientRect();
  const at = ((pointer.x - box.left) * chart.viewBox.baseVal.width) / box.width;
  let near = null;
  for (const one of drawn(chart)) if (!near || Math.abs(one.x - at) < Math.abs(near.x - at)) near = one;
  if (!near) return;
  const { left, width, minutes, unit } = chart.dataset;
  const when = ago(Math.round(minutes * (1 - (near.x - left) / width)));
  const right = near.x > Number(left) + width / 2;
  const shown = element("g", { class: "pointer" });
  shown.append(
    element("path", { d: `M${near.x} 10V98` }),
    element("circle", { cx: near.x, cy: near.y, r: 3 }),
    element("text", { x: near.x + (right ? -6 : 6), y: 18, "text-anchor": right ? "end" : "start" },
      `${near.value} ${unit}, ${when}`));
  chart.append(shown);
}

for (const kind of ["pointermove", "pointerdown"]) {
  document.addEventListener(kind, (event) => {
    pointer = { x: event.clientX, y: event.clientY };
    point();
  });
}
document.documentElement.addEventListener("pointerleave", () => {
  pointer = null;
  point();
});
setInterval(refresh, 5000);
