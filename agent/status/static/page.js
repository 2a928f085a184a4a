// Keeps the page live: the whole page is made on the device, this only puts its newest state in place.
"use strict";
async function refresh() {
  if (document.hidden) return;
  try {
    const answer = await fetch("/", { cache: "no-store" });
    if (!answer.ok) throw new Error(String(answer.status));
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
    document.querySelector("main").replaceWith(fresh.querySelector("main"));
  } catch {
    document.querySelector("main").classList.add("stale");
    const verdict = document.querySelector(".verdict");
    verdict.textContent = "no answer from the agent; these are old values";
    verdict.className = "verdict failing";
  }
}
setInterval(refresh, 5000);
