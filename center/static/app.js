// What every page does: fresh times, copy buttons, questions before removal, live parts, light and dark.
"use strict";
(() => {
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
  const zone = new Intl.DateTimeFormat(undefined, { timeZoneName: "short", hour: "numeric" })
    .formatToParts(new Date()).find((part) => part.type === "timeZoneName")?.value ?? "";
  const two = (n) => String(n).padStart(2, "0");
  const exact = (ms, named = true) => {
    const d = new Date(ms);
    return `${d.getFullYear()}-${two(d.getMonth() + 1)}-${two(d.getDate())} ${two(d.getHours())}:${two(d.getMinutes())}:${two(d.getSeconds())}${named ? ` ${zone}` : ""}`;
  };
  const put = (element, text) => { if (element.textContent !== text) element.textContent = text; };
  const freshen = (root = document) => {
    for (const t of root.querySelectorAll("time[data-ago]")) {
      const at = Date.parse(t.dateTime);
      put(t, ago((Date.now() - at) / 1000));
      t.title = exact(at);
    }
    for (const e of root.querySelectorAll("[data-exact]")) put(e, exact(Number(e.dataset.exact), e.dataset.plain === undefined));
    for (const e of root.querySelectorAll("[data-zone]")) put(e, zone);
  };
  freshen();
  setInterval(freshen, 1000);
  window.iot = { freshen, announce };

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
      const dialog = document.getElementById(opener.dataset.confirm);
      dialog.querySelector("form").action = opener.dataset.confirmAction;
      dialog.querySelector("[data-confirm-text]").textContent = opener.dataset.confirmName;
      dialog.showModal();
    }
    if (event.target.closest("[data-close]")) event.target.closest("dialog").close();
    if (event.target.matches("dialog")) event.target.close();
  });

  // ---- selects that act at once
  document.addEventListener("change", (event) => {
    const select = event.target.closest("select[data-go]");
    if (select) location.assign(select.value);
  });

  // ---- parts that are loaded again every few seconds
  const quiet = (part) => !document.hidden && !part.contains(document.activeElement) && !document.querySelector("dialog[open]");
  document.querySelectorAll("[data-live]").forEach((part, place) => {
    setInterval(async () => {
      if (!quiet(part)) return;
      try {
        const answer = await fetch(location.href, { headers: { Accept: "text/html" } });
        if (!answer.ok) return;
        const fresh = new DOMParser().parseFromString(await answer.text(), "text/html").querySelectorAll("[data-live]")[place];
        if (fresh && quiet(part)) { part.replaceChildren(...fresh.childNodes); freshen(part); }
      } catch { /* the center is away: try again next time */ }
    }, Number(part.dataset.live) * 1000);
  });

  // ---- empty pages: there is something to see as soon as there is something
  const waiting = document.querySelector("[data-await]");
  if (waiting) setInterval(async () => {
    if (!quiet(waiting)) return;
    try {
      const answer = await fetch(location.href, { headers: { Accept: "text/html" } });
      if (answer.ok && !new DOMParser().parseFromString(await answer.text(), "text/html").querySelector("[data-await]")) location.reload();
    } catch { /* the center is away: try again next time */ }
  }, Number(waiting.dataset.await) * 1000);

  // ---- light and dark
  for (const button of document.querySelectorAll("[data-theme-toggle]")) {
    button.addEventListener("click", () => announce(`${window.toggleTheme() === "dark" ? "Dark" : "Light"} colours`));
  }
})();
