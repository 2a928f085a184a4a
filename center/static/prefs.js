// How this visitor wants to read: units, zone, clock; numbers in the browser's language. Kept in this browser.
"use strict";
window.iot = {};
(() => {
  const KEY = "prefs";
  const CHOICES = { temperature: ["°C", "°F"], pressure: ["hPa", "inHg", "mmHg"], zone: ["local", "utc"], clock: ["24", "12"] };
  // From a unit of the data model: factor, offset, decimals fewer.
  const CONVERSIONS = {
    "°C": { "°F": [1.8, 32, 1] },
    "hPa": { inHg: [0.029529983, 0, 0], mmHg: [0.750061683, 0, 1] },
  };
  const kept = () => { try { return JSON.parse(localStorage.getItem(KEY)) ?? {}; } catch { return {}; } };
  const format = new Intl.DateTimeFormat(undefined, { timeZoneName: "short", hour: "numeric" }); // one: each costs a phone 20 ms
  const twelve = format.resolvedOptions().hour12;
  const prefs = { temperature: "°C", pressure: "hPa", zone: "local", clock: twelve ? "12" : "24" };
  for (const [name, value] of Object.entries(kept())) if (CHOICES[name]?.includes(value)) prefs[name] = value;

  const chosen = (unit) => ({ "°C": prefs.temperature, "hPa": prefs.pressure })[unit] ?? unit;
  const rule = (unit) => CONVERSIONS[unit]?.[chosen(unit)] ?? [1, 0, 0];
  const convert = (value, unit) => { const [factor, offset] = rule(unit); return value * factor + offset; };
  const revert = (value, unit) => { const [factor, offset] = rule(unit); return (value - offset) / factor; };
  const decimals = (unit, count) => Math.max(count - rule(unit)[2], 0);

  // ---- numbers
  const formats = new Map();
  // `powers`: with a power of ten, for what would be too long otherwise or nothing but noughts (presentation.by_powers).
  const number = (value, count, least = count, powers = Math.abs(value) >= 1e16) => {
    const key = powers ? "powers" : `${least} ${count}`;
    if (!formats.has(key)) formats.set(key, new Intl.NumberFormat(undefined, powers ? { notation: "scientific", maximumFractionDigits: 3 } : { minimumFractionDigits: least, maximumFractionDigits: count }));
    return formats.get(key).format(value).replaceAll("-", "\u2212");
  };
  // A value of the data model as text, without its unit; a difference has no offset.
  const text = (value, unit, count, { difference = false } = {}) => {
    const shown = difference ? value * rule(unit)[0] : convert(value, unit);
    const digits = decimals(unit, count);
    return number(shown, digits, unit ? digits : 0, Math.abs(shown) >= 1e16 || (!unit && shown !== 0 && Math.abs(shown) < 0.001));
  };
  const withUnit = (value, unit, count, how) => `${text(value, unit, count, how)}${unit ? (unit === "°" ? "" : "\u00a0") + chosen(unit) : ""}`;

  // ---- times
  const now = () => Date.now() + (window.iot.ahead ?? 0); // by the center's clock (live.js)
  const two = (n) => String(n).padStart(2, "0");
  const parts = (ms) => {
    const d = new Date(prefs.zone === "utc" ? ms : ms - new Date(ms).getTimezoneOffset() * 60000);
    return { y: d.getUTCFullYear(), m: d.getUTCMonth(), d: d.getUTCDate(), h: d.getUTCHours(), min: d.getUTCMinutes(), s: d.getUTCSeconds() };
  };
  const zones = new Map(); // the zone's name at an offset: in winter a time of July is still one of the summer
  const zone = (ms = Date.now()) => {
    if (prefs.zone === "utc") return "UTC";
    const offset = new Date(ms).getTimezoneOffset();
    if (!zones.has(offset)) zones.set(offset, format.formatToParts(new Date(ms)).find((part) => part.type === "timeZoneName")?.value ?? "");
    return zones.get(offset);
  };
  const clock = (ms, seconds = true) => {
    const { h, min, s } = parts(ms);
    const tail = `${two(min)}${seconds ? `:${two(s)}` : ""}`;
    return prefs.clock === "12" ? `${h % 12 || 12}:${tail}\u00a0${h < 12 ? "am" : "pm"}` : `${two(h)}:${tail}`;
  };
  const date = (ms) => { const { y, m, d } = parts(ms); return `${y}-${two(m + 1)}-${two(d)}`; };
  const MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
  // With the year where asked, and by default where it is not this one.
  const day = (ms, year) => { const { y, m, d } = parts(ms); return `${d}\u00a0${MONTHS[m]}${year ?? y !== parts(now()).y ? ` ${y}` : ""}`; };
  const month = (ms) => { const { y, m } = parts(ms); return `${MONTHS[m]} ${y}`; };
  const exact = (ms, named = true) => `${date(ms)} ${clock(ms)}${named ? ` ${zone(ms)}` : ""}`;
  // For <input type="datetime-local">, and back.
  const toInput = (ms) => { const { h, min } = parts(ms); return `${date(ms)}T${two(h)}:${two(min)}`; };
  const fromInput = (value) => new Date(prefs.zone === "utc" ? `${value}Z` : value).getTime();

  // ---- on the page: data-v is a value of the data model, data-u its unit, data-d its decimals
  const put = (node, said) => { if (node.textContent !== said) node.textContent = said; };
  const show = (element) => {
    const { v, u = "", d = "3" } = element.dataset;
    const said = text(Number(v), u, Number(d));
    const [first] = element.childNodes;
    if (first?.nodeType === Node.TEXT_NODE) put(first, said); else element.prepend(said);
    const unit = element.querySelector(":scope > .unit");
    if (unit) put(unit, u === "°" ? u : ` ${chosen(u)}`);
  };
  const apply = (root = document) => {
    for (const element of root.querySelectorAll("[data-v]")) show(element);
    for (const element of root.querySelectorAll("[data-unit-of]")) put(element, chosen(element.dataset.unitOf));
    for (const element of root.querySelectorAll("[data-exact]")) put(element, exact(Number(element.dataset.exact), element.dataset.plain === undefined));
    for (const element of root.querySelectorAll("[data-zone]")) put(element, zone(Number(element.closest("table")?.querySelector("[data-exact]")?.dataset.exact ?? Date.now())));
  };
  const choose = (name, value) => {
    prefs[name] = value;
    try { localStorage.setItem(KEY, JSON.stringify({ ...kept(), [name]: value })); } catch { /* private mode: for this page only */ }
    apply();
    document.dispatchEvent(new CustomEvent("prefschange"));
  };
  Object.assign(window.iot, { now, prefs, choose, chosen, convert, revert, number, text, withUnit, clock, date, day, month, exact, zone, toInput, fromInput, apply, show });
})();
