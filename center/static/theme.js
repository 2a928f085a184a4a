// Runs before the first paint: the colours of the last choice, else those of the system.
"use strict";
(() => {
  const system = matchMedia("(prefers-color-scheme: dark)");
  const read = () => { try { return localStorage.getItem("theme"); } catch { return null; } };
  const apply = () => {
    const chosen = read();
    const theme = chosen === "light" || chosen === "dark" ? chosen : system.matches ? "dark" : "light";
    document.documentElement.dataset.bsTheme = theme;
    document.dispatchEvent(new CustomEvent("themechange", { detail: theme }));
  };
  system.addEventListener("change", apply);
  window.toggleTheme = () => {
    const next = document.documentElement.dataset.bsTheme === "dark" ? "light" : "dark";
    try { localStorage.setItem("theme", next); } catch { /* private mode: for this page only */ }
    document.documentElement.dataset.bsTheme = next;
    document.dispatchEvent(new CustomEvent("themechange", { detail: next }));
    return next;
  };
  apply();
})();
