// What has to happen in the browser. Functions of window.dash_clientside.mltrading are
// Dash callbacks; the rest is links without a reload and keyboard reach.
(function () {
  "use strict";

  const preference = window.matchMedia("(prefers-color-scheme: light)");
  const fromUrl = (search) => new URLSearchParams(search || "").get("theme");
  const known = (theme) => theme === "light" || theme === "dark";

  function chosen(search) {
    const theme = fromUrl(search);
    return known(theme) ? theme : preference.matches ? "light" : "dark";
  }

  function apply(search) {
    const scheme = chosen(search);
    document.documentElement.dataset.theme = scheme;
    return scheme;
  }

  apply(window.location.search);
  preference.addEventListener("change", () => {
    window.dash_clientside.set_props("scheme", { data: apply(window.location.search) });
  });

  // Where dcc.Graph looks if it is drawn before plotly.js is there.
  window._dashPlotlyJSURL = document.getElementById("plotly").src;

  document.addEventListener("click", (event) => {
    const link = event.target.closest && event.target.closest("a[data-nav]");
    const plain = !(event.metaKey || event.ctrlKey || event.shiftKey || event.altKey);
    if (!link || !plain || event.button !== 0 || event.defaultPrevented) {
      return;
    }
    event.preventDefault();
    if (link.href === window.location.href) {
      return;
    }
    const samePath = link.pathname === window.location.pathname;
    window.history.pushState({}, "", link.href);
    window.dispatchEvent(new PopStateEvent("popstate"));
    if (!samePath) {
      window.scrollTo(0, 0);
    }
  });

  // A page that has a beat is looked at anew every 30 s, and at once when its tab comes
  // back into view. Nobody is asked for what nobody sees.
  const BEAT_MS = 30000;
  let beaten = Date.now();
  function beat() {
    const due = Date.now() - beaten >= BEAT_MS;
    if (due && !document.hidden && document.getElementById("standing")) {
      beaten = Date.now();
      window.dash_clientside.set_props("beat", { data: beaten });
    }
  }

  // The market's clock: [opens, closes] of the coming sessions, in ms since 1970.
  let sessions = [];
  function marketClock(now) {
    const next = sessions.find((session) => session[1] > now);
    if (!next) {
      // A page that was left open for weeks; or the server knows no hours and says so.
      return sessions.length ? { children: "Reload for the hours of NYSE" } : null;
    }
    const open = next[0] <= now;
    const at = new Date(open ? next[1] : next[0]);
    const today = at.toDateString() === new Date(now).toDateString();
    const said = new Intl.DateTimeFormat("en-GB", {
      weekday: today ? undefined : "short",
      hour: "2-digit",
      minute: "2-digit",
      timeZoneName: "short",
    }).format(at);
    const what = open ? "NYSE open · closes " : "NYSE closed · opens ";
    return {
      children: what + said.replace(",", ""),
      className: open ? "clock open" : "clock closed",
    };
  }
  function tick() {
    const shown = document.hidden ? null : document.getElementById("clock");
    const said = shown && marketClock(Date.now());
    if (said && said.children !== shown.textContent) {
      window.dash_clientside.set_props("clock", said);
    }
  }

  function second() {
    beat();
    tick();
  }
  window.setInterval(second, 1000);
  document.addEventListener("visibilitychange", second);

  const number = new Intl.NumberFormat("en", {
    minimumFractionDigits: 2,
    maximumFractionDigits: 2,
  });
  const large = new Intl.NumberFormat("en", {
    notation: "compact",
    minimumFractionDigits: 1,
    maximumFractionDigits: 1,
  });

  window.dash_clientside = window.dash_clientside || {};
  window.dash_clientside.mltrading = {
    scheme: apply,

    // Written in the viewer's time zone; the server knows New York's only.
    hours: function (hours) {
      sessions = hours || [];
      const said = marketClock(Date.now());
      const same = window.dash_clientside.no_update;
      return said ? [said.children, said.className || "clock"] : [same, same];
    },

    title: function (title) {
      if (title) {
        document.title = title;
      }
    },

    // A click on a sector filters, a click on the same one clears: only the query.
    toggleSector: function (click, search) {
      if (!click || !click.points || !click.points.length) {
        return window.dash_clientside.no_update;
      }
      const sector = click.points[0].customdata;
      const query = new URLSearchParams(search || "");
      if (query.get("sector") === sector) {
        query.delete("sector");
      } else {
        query.set("sector", sector);
      }
      const text = query.toString();
      return text ? "?" + text : "";
    },

    // Keep the edges of a zoomed or panned view. Not by an output: Dash would go on to
    // the server also for the events that only say that the chart was drawn or resized.
    moved: function (event) {
      const keep = (data) => window.dash_clientside.set_props("window", { data });
      const edges = event && [event["xaxis.range[0]"], event["xaxis.range[1]"]];
      if (event && event["xaxis.autorange"]) {
        keep({ reset: Date.now() });
      } else if (edges && edges.every(Number.isFinite)) {
        keep({ left: edges[0], right: edges[1] });
      }
    },

    // The bar pointed at, as one line.
    readout: function (hover) {
      if (!hover || !hover.points) {
        return window.dash_clientside.no_update;
      }
      const price = hover.points.find((point) => point.customdata);
      if (!price) {
        return window.dash_clientside.no_update;
      }
      // The first two traces are the volume of rising and of falling bars.
      const bar = hover.points.find((point) => point.curveNumber < 2);
      const parts = [price.customdata];
      if (price.open === undefined) {
        parts.push("C " + number.format(price.y));
      } else {
        for (const name of ["open", "high", "low", "close"]) {
          parts.push(name[0].toUpperCase() + " " + number.format(price[name]));
        }
      }
      if (bar) {
        parts.push("V " + large.format(bar.y).replace(/([KMBT])$/, " $1"));
      }
      return parts.join("  ");
    },
  };
})();
