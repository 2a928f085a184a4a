// What every page does: fresh times, copy buttons, questions before removal, units, light and dark.
"use strict";
(() => {
  const { iot } = window;
  const announce = (text) => { document.getElementById("announce").textContent = text; };

  // ---- times: relative ones kept fresh, exact ones in the reader's zone
  const units = [[31536000, "year"], [2592000, "month"], [86400, "day"], [3600, "h"], [60, "min"]];
  const ago = (seconds) => {
    const ahead = seconds < -1;
    seconds = Math.abs(seconds);
    if (seconds < 2) return "just now";
    for (const [size, name] of units) {
      if (seconds < size) continue;
      const count = ahead ? Math.round(seconds / size) : Math.floor(seconds / size);
      const words = `${count} ${name}${count > 1 && size >= 86400 ? "s" : ""}`;
      return ahead ? `in ${words}` : `${words} ago`;
    }
    return ahead ? `in ${Math.floor(seconds)} s` : `${Math.floor(seconds)} s ago`;
  };
  const put = (element, text) => { if (element.textContent !== text) element.textContent = text; };
  const age = (root = document) => {
    for (const t of root.querySelectorAll("time[data-ago]")) {
      const at = Date.parse(t.dateTime);
      put(t, ago((iot.now() - at) / 1000));
      t.title = iot.exact(at);
    }
  };
  const freshen = (root) => { age(root); iot.apply(root); };
  freshen();
  setInterval(age, 1000); // nothing else changes by itself: a table has thousands of numbers
  Object.assign(iot, { freshen, announce });

  // ---- copying
  const copyText = async (text) => {
    try {
      await navigator.clipboard.writeText(text);
      return true;
    } catch { // no permission, or a page that is not secure
      const area = document.createElement("textarea");
      area.value = text;
      area.className = "visually-hidden";
      document.body.append(area);
      area.select();
      const done = document.execCommand("copy");
      area.remove();
      return done;
    }
  };
  document.addEventListener("click", async (event) => {
    const button = event.target.closest("[data-copy], [data-copy-from]");
    if (!button) return;
    const text = button.dataset.copy ?? document.getElementById(button.dataset.copyFrom).value;
    const done = await copyText(text);
    const label = button.lastChild;
    const before = button.dataset.label ??= label.textContent;
    label.textContent = done ? "Copied" : "Press Ctrl+C";
    announce(done ? `${button.dataset.copyName} copied` : "Copying failed: select the text and press Ctrl+C");
    setTimeout(() => { label.textContent = before; }, 2500);
  });

  // ---- questions
  document.addEventListener("click", (event) => {
    const opener = event.target.closest("[data-confirm]");
    if (opener) {
      event.preventDefault();
      const dialog = document.getElementById(opener.dataset.confirm);
      dialog.querySelector("form").action = opener.dataset.confirmAction;
      dialog.querySelector("[data-confirm-text]").textContent = opener.dataset.confirmName;
      dialog.showModal();
    }
    if (event.target.closest("[data-close]")) event.target.closest("dialog").close();
    if (event.target.matches("dialog")) event.target.close();
  });

  // ---- devices to choose from: of a large fleet the list holds what the letters find in names and ids
  for (const input of document.querySelectorAll("input[list]")) {
    const { search } = input.list.dataset;
    let timer;
    if (search) input.addEventListener("input", () => {
      clearTimeout(timer);
      timer = setTimeout(async () => {
        try {
          const answer = await fetch(`${search}?search=${encodeURIComponent(input.value)}`, { headers: { Accept: "application/json" } });
          if (!answer.ok) return;
          const { devices } = await answer.json();
          input.list.replaceChildren(...devices.map(({ id, name }) => Object.assign(document.createElement("option"), { value: id, label: name })));
        } catch { /* the center is away: what is there can still be chosen */ }
      }, 250);
    });
  }
  // Another device is shown as this one is; one that is picked from the list goes at once.
  for (const form of document.querySelectorAll("form[data-go]")) {
    const { device } = form.elements;
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      const view = new URLSearchParams(location.search);
      view.set("device", device.value);
      location.assign(`${form.action}?${view}`);
    });
    device.addEventListener("input", (event) => { if (event.inputType !== "insertText" && [...device.list.options].some((option) => option.value === device.value)) form.requestSubmit(); });
  }
  for (const form of document.querySelectorAll("form[data-filters]")) form.addEventListener("change", () => form.requestSubmit());

  // ---- empty pages: there is something to see as soon as there is something
  const waiting = document.querySelector("[data-await]");
  let typed = false; // into a form of the page: that is not thrown away
  if (waiting) addEventListener("input", (event) => { typed ||= Boolean(event.target.form); });
  const looking = waiting && setInterval(async () => {
    if (document.hidden || waiting.contains(document.activeElement)) return;
    try {
      const answer = await fetch(waiting.dataset.from ?? location.href, { headers: { Accept: "text/html" } });
      if (!answer.ok) return;
      const fresh = new DOMParser().parseFromString(await answer.text(), "text/html").querySelector("[data-await]");
      if (!fresh && typed) {
        clearInterval(looking);
        const title = Object.assign(document.createElement("h2"), { textContent: "There is something to see now" });
        const link = Object.assign(document.createElement("a"), { className: "btn btn-quiet", textContent: "Load the page" });
        link.href = waiting.dataset.from ? answer.url : location.pathname + location.search;
        waiting.replaceChildren(title, link);
        announce(title.textContent);
      } else if (!fresh) {
        if (waiting.dataset.from) location.assign(answer.url); else location.reload();
      } else if (waiting.querySelector("h2").textContent !== fresh.querySelector("h2").textContent) { // a step further
        waiting.replaceChildren(...fresh.childNodes);
        freshen(waiting);
      }
    } catch { /* the center is away: try again next time */ }
  }, Number(waiting.dataset.await) * 1000);

  // ---- the menu of a narrow screen takes the focus
  const side = document.getElementById("side");
  side.addEventListener("toggle", (event) => { if (event.newState === "open") side.focus(); });

  // ---- units and times
  document.addEventListener("click", (event) => {
    if (event.target.closest("[data-open-prefs]")) document.getElementById("prefs").showModal();
  });
  for (const select of document.querySelectorAll("select[data-pref]")) {
    select.value = iot.prefs[select.dataset.pref];
    select.addEventListener("change", () => iot.choose(select.dataset.pref, select.value));
  }

  // ---- without a network: a page that says so (sw.js keeps that and the scripts and styles, nothing else)
  if ("serviceWorker" in navigator) navigator.serviceWorker.register("/sw.js").catch(() => { /* not over plain HTTP */ });

  // ---- light and dark
  for (const button of document.querySelectorAll("[data-theme-toggle]")) {
    button.addEventListener("click", () => announce(`${window.toggleTheme() === "dark" ? "Dark" : "Light"} colours`));
  }
})();
