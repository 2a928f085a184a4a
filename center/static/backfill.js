// "Write missing data": asks for one batch after the other and shows how far it is.
"use strict";
addEventListener("DOMContentLoaded", () => {
  const form = document.getElementById("fill");
  if (!form) return;
  const button = form.querySelector("button[type=submit]");
  const box = document.getElementById("fill-progress");
  const bar = box.querySelector("progress");
  const note = document.getElementById("fill-note");
  const format = (n) => window.iot.number(n, 0);
  const renewed = async () => { // what stands above: registered, live, its last point
    const answer = await fetch(location.href, { headers: { Accept: "text/html" } });
    if (!answer.ok) return;
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
    for (const id of ["fill-state", "fill-facts", "fill-links"]) document.getElementById(id).replaceWith(fresh.getElementById(id));
    window.iot.freshen();
  };
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    button.disabled = true;
    box.hidden = false;
    document.getElementById("fill-done").hidden = true;
    let from = 0, written = 0;
    try {
      for (;;) {
        const body = new FormData(form);
        body.set("from", String(from));
        const answer = await fetch(form.action, { method: "POST", body, headers: { Accept: "application/json" } });
        if (!answer.ok) throw new Error(answer.status === 401 ? "log in as administrator first" : `the center answered ${answer.status}`);
        const state = await answer.json();
        written += state.written;
        from = state.next;
        bar.max = state.total;
        bar.value = state.done;
        note.textContent = `${format(state.done)} of ${format(state.total)} minutes looked at, ${format(written)} points written`;
        if (state.finished) break;
      }
      note.textContent = written ? `Done: ${format(written)} points written.` : "Done: nothing was missing.";
      document.getElementById("fill-done").hidden = false;
      await renewed();
    } catch (error) {
      note.textContent = `Stopped after ${format(written)} points: ${error.message}. Start again: what is there is left alone.`;
    }
    window.iot.announce(note.textContent);
    button.disabled = false;
  });
});
