// Day and night: when the sun rises and sets at a place, good to some two minutes (NOAA's low-accuracy equations).
"use strict";
(() => {
  const DAY = 86400000, RAD = Math.PI / 180;
  const HORIZON = -0.833; // degrees: refraction, and the sun's upper edge

  // Moments of sunrise and sunset (Unix ms) of the day around a solar noon; null where it does not rise or set.
  function around(noon, lat) {
    const n = noon / DAY - 10957.5; // days since noon of 1 January 2000
    const mean = (357.529 + 0.98560028 * n) * RAD;
    const longitude = (280.459 + 0.98564736 * n + 1.915 * Math.sin(mean) + 0.02 * Math.sin(2 * mean)) * RAD;
    const declination = Math.asin(Math.sin(23.439 * RAD) * Math.sin(longitude));
    const cos = (Math.sin(HORIZON * RAD) - Math.sin(lat * RAD) * Math.sin(declination)) / (Math.cos(lat * RAD) * Math.cos(declination));
    if (cos <= -1) return "day";
    if (cos >= 1) return "night";
    const half = (Math.acos(cos) / RAD / 360) * DAY;
    // The equation of time: how far the true noon is from the mean one.
    const ascension = Math.atan2(Math.cos(23.439 * RAD) * Math.sin(longitude), Math.cos(longitude)) / RAD;
    const apart = ((280.459 + 0.98564736 * n - ascension + 540) % 360 + 360) % 360 - 180;
    const trueNoon = noon - (apart / 360) * DAY;
    return [trueNoon - half, trueNoon + half];
  }

  // The nights within [start, stop] as pairs of Unix ms; none over more than two months, where they would be a blur.
  window.iot.nights = (start, stop, lat, lon) => {
    if (!Number.isFinite(lat) || !Number.isFinite(lon) || stop - start > 62 * DAY) return [];
    const nights = [];
    let dusk = null;
    const first = Math.floor(start / DAY) * DAY + DAY / 2 - (lon / 360) * DAY;
    for (let noon = first - 2 * DAY; noon < stop + 2 * DAY; noon += DAY) {
      const sun = around(noon, lat);
      if (sun === "night") { dusk ??= noon - DAY / 2; continue; }
      if (dusk !== null) nights.push([dusk, sun === "day" ? noon - DAY / 2 : sun[0]]);
      dusk = sun === "day" ? null : sun[1];
    }
    if (dusk !== null) nights.push([dusk, stop]);
    return nights.map(([a, b]) => [Math.max(a, start), Math.min(b, stop)]).filter(([a, b]) => a < b);
  };
})();
