/* Tell the service how long this page took: once, when it is hidden or left.

   <script defer src="timings.js" data-page="charts" data-to="/metrics/client"></script>

   Without data-page the page is named by the first part of its path, "home" at "/".
   Times are milliseconds since the visit began. The load event is read when it is over:
   inside its handler loadEventEnd is still 0. Nothing tells who the visitor is. */
(() => {
  "use strict";
  const script = document.currentScript;
  const to = script?.dataset.to || "/metrics/client";
  const page =
    script?.dataset.page || location.pathname.split("/")[1] || "home";
  // What is painted in a tab nobody has looked at yet says nothing about waiting.
  const seen = document.visibilityState === "visible";
  const observers = [];
  const vitals = {};
  let sent = false;

  const observe = (type, take, options) => {
    if (!window.PerformanceObserver?.supportedEntryTypes?.includes(type)) return;
    const each = (entries) => entries.forEach(take);
    const observer = new PerformanceObserver((list) => each(list.getEntries()));
    observer.observe({ type, buffered: true, ...options });
    observers.push(() => each(observer.takeRecords()));
    return true;
  };

  const visit = () => performance.getEntriesByType("navigation")[0] || {};
  const since = (time) => Math.max(time - (visit().activationStart || 0), 0);

  if (seen) {
    observe("paint", (entry) => {
      if (entry.name === "first-contentful-paint")
        vitals.FCP = since(entry.startTime);
    });
    observe("largest-contentful-paint", (entry) => {
      vitals.LCP = since(entry.startTime);
    });
  }

  // Shifts in windows of at most 5 s, with gaps of less than 1 s; the worst counts.
  let first = 0, last = 0, sum = 0;
  const shifted = (entry) => {
    if (entry.hadRecentInput) return;
    const at = entry.startTime;
    if (at - last < 1000 && at - first < 5000) sum += entry.value;
    else [first, sum] = [at, entry.value];
    last = at;
    vitals.CLS = Math.max(vitals.CLS, sum);
  };
  if (window.PerformanceObserver?.supportedEntryTypes?.includes("layout-shift")) {
    vitals.CLS = 0;
    observe("layout-shift", shifted);
  }

  // The slowest answer to a visitor, leaving out one in fifty; ten are enough for that.
  let slowest = [];
  const interactions = new Set();
  const answered = (entry) => {
    const id = entry.interactionId;
    if (!id) return;
    interactions.add(id);
    const known = slowest.find((one) => one.id === id);
    if (known) known.took = Math.max(known.took, entry.duration);
    else slowest.push({ id, took: entry.duration });
    slowest.sort((a, b) => b.took - a.took);
    slowest = slowest.slice(0, 10);
  };
  observe("event", answered, { durationThreshold: 40 });
  observe("first-input", answered);

  const send = () => {
    if (sent) return;
    sent = true;
    for (const flush of observers) flush();
    const count = performance.interactionCount || interactions.size;
    const rank = Math.min(slowest.length - 1, Math.floor(count / 50));
    if (rank >= 0) vitals.INP = slowest[rank].took;
    const { responseStart = 0, loadEventEnd = 0 } = visit();
    if (responseStart > 0) vitals.TTFB = since(responseStart);
    const report = {
      page,
      timestamp: Date.now(),
      vitals: Object.entries(vitals).map(([name, value]) => ({ name, value })),
    };
    if (loadEventEnd > 0) report.load_time = since(loadEventEnd);
    if (report.vitals.length || loadEventEnd > 0)
      navigator.sendBeacon(to, JSON.stringify(report));
  };
  document.addEventListener("visibilitychange", () => {
    if (document.visibilityState === "hidden") send();
  });
  addEventListener("pagehide", send);
})();
