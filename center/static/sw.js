// Without a network: the page that says so. Kept are that page and its style, script and icon; never a page with data, an
// answer of the API or anything of a login. What is online is asked of the center as if this file were not there.
"use strict";
const KEPT = "static-RELEASE"; // the server puts the release in
const PARTS = ["/offline", "PARTS"]; // and the addresses
addEventListener("install", (event) => {
  event.waitUntil(caches.open(KEPT).then((cache) => cache.addAll(PARTS)).then(() => self.skipWaiting()));
});
addEventListener("activate", (event) => {
  event.waitUntil((async () => {
    for (const name of await caches.keys()) if (name !== KEPT) await caches.delete(name);
    await registration.navigationPreload?.enable(); // so that a page need not wait for this worker to start
    await clients.claim();
  })());
});
addEventListener("fetch", (event) => {
  const { request } = event;
  const { origin, pathname } = new URL(request.url);
  if (request.method !== "GET" || origin !== location.origin) return;
  if (request.mode === "navigate") event.respondWith(page(event));
  else if (PARTS.includes(pathname)) event.respondWith(caches.match(request).then((kept) => kept ?? fetch(request)));
});
const page = async (event) => {
  try {
    return (await event.preloadResponse) ?? await fetch(event.request);
  } catch {
    return (await caches.match("/offline")) ?? Response.error();
  }
};
