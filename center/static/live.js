// What keeps an open page true: parts that are asked for again, values that fade, and a banner once the center, its store
// or the session is away.
"use strict";
(() => {
  const { heartbeat, login, now } = document.currentScript.dataset;
  const BEAT = 15000; // ms
  const WHOLE = 20; // every so many times a part is asked for with the courses of the day
  const AFTER = 3; // a center that is away for a moment is not worth a word: a retry follows in a third of a beat
  let failed = 0;
  // The center's clock is ahead of this machine's by so much: ages are told by it. Less is the network's.
  const tell = (time) => { const ahead = time - Date.now(); window.iot.ahead = Math.abs(ahead) > 5000 ? ahead : 0; };
  tell(Number(now));
  if (window.iot.ahead) window.iot.freshen();

  // ---- is all well?
  const say = (title, text, link) => {
    let banner = document.getElementById("away");
    if (!title) {
      if (document.querySelector("[data-retry]")) location.reload();
      if (!banner) return;
      banner.remove();
      delete document.body.dataset.away;
      for (const chip of document.querySelectorAll("[data-was]")) {
        chip.className = "state state-live";
        chip.lastChild.textContent = chip.dataset.was;
        delete chip.dataset.was;
      }
      return;
    }
    if (!banner) {
      banner = document.createElement("div");
      banner.id = "away";
      banner.className = "notice notice-danger mb-3";
      banner.setAttribute("role", "alert");
      document.getElementById("main").prepend(banner);
    }
    const strong = document.createElement("strong");
    strong.textContent = title;
    const body = document.createElement("div");
    body.append(strong, ` ${text} `);
    if (link) {
      const a = document.createElement("a");
      a.href = link;
      a.textContent = "Log in";
      body.append(a);
    }
    if (banner.textContent !== body.textContent) banner.replaceChildren(body);
    document.body.dataset.away = "";
    for (const chip of document.querySelectorAll(".state-live")) { // nobody knows any more
      chip.dataset.was = chip.lastChild.textContent;
      chip.className = "state state-waiting";
      chip.lastChild.textContent = "Not known";
    }
  };
  const beat = async () => {
    if (document.hidden) return BEAT;
    try {
      const answer = await fetch(heartbeat, { headers: { Accept: "application/json" } });
      const said = await answer.json();
      failed = 0;
      if (answer.ok) {
        tell(said.now);
        say("");
      } else if (answer.status === 401) {
        say("Your session has ended.", "What is on this page is not kept up to date any more.", `${login}?next=${encodeURIComponent(location.pathname + location.search)}`);
      } else if (answer.status === 503) {
        say("The store does not answer.", `What is on this page is old. ${said.message}`);
      }
    } catch { // nothing answers, or something else than the center
      failed += 1;
      if (failed >= AFTER) say("The center does not answer.", "What is on this page is old; it goes on by itself once the center is back.");
      return BEAT / AFTER;
    }
    return document.body.dataset.away === undefined ? BEAT : BEAT / AFTER;
  };
  const beating = async () => setTimeout(beating, await beat());
  if (document.querySelector("[data-retry]")) document.body.dataset.away = ""; // a page that says so itself
  setTimeout(beating, BEAT / AFTER);
  document.addEventListener("visibilitychange", beat);

  // ---- values fade with their age
  const fade = () => {
    for (const value of document.querySelectorAll(".value[data-time-ns]")) {
      const limit = Number(value.closest("[data-stale-after]")?.dataset.staleAfter ?? Infinity);
      const stale = window.iot.now() / 1000 - Number(value.dataset.timeNs) / 1e9 > limit;
      if (stale !== (value.dataset.stale !== undefined)) value.toggleAttribute("data-stale", stale);
    }
  };
  setInterval(fade, 1000);

  // ---- parts that are asked for again every few seconds: what changed of them, and sometimes the whole
  const quiet = (part) => !document.hidden && !part.contains(document.activeElement) && !document.querySelector("dialog[open]") && !part.querySelector(":checked");
  const keyed = (root) => new Map([...root.querySelectorAll("[data-part]")].map((element) => [element.dataset.part, element]));
  const freshen = async (part, times, etag) => {
    const whole = times % WHOLE === 0;
    const headers = { Accept: "text/html" };
    if (!whole) Object.assign(headers, { "X-Part": "live" }, etag ? { "If-None-Match": etag } : {});
    const answer = await fetch(location.href, { headers });
    if (!answer.ok || answer.redirected) return etag; // 304 too: nothing changed
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
    if (!quiet(part)) return etag;
    if (whole) {
      const found = fresh.querySelector("[data-fresh]");
      if (found) part.replaceChildren(...found.childNodes);
      else location.reload();
    } else {
      const [old, now] = [keyed(part), keyed(fresh)];
      if ([...old.keys()].join("\n") !== [...now.keys()].join("\n")) return freshen(part, 0);
      for (const [key, element] of now) old.get(key).replaceWith(element);
    }
    window.iot.freshen(part);
    return whole ? undefined : answer.headers.get("ETag");
  };
  for (const part of document.querySelectorAll("[data-fresh]")) {
    let times = 0, etag;
    setInterval(async () => {
      if (!quiet(part)) return;
      times += 1;
      try { etag = await freshen(part, times, etag); } catch { /* the banner says it */ }
    }, Number(part.dataset.fresh) * 1000);
  }
})();
