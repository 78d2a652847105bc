"use strict";

// Places orders through the REST API, follows their events, and switches the consumer and the broker of `make run`.
document.addEventListener("DOMContentLoaded", () => {
  const PAUSE_MS = 300;
  const IDLE_PAUSE_MS = 1500;
  const TIMEOUT_MS = 8000;
  const DETAILED_ORDERS = 10;
  const MAX_ORDERS = 1000; // The server's limit for one page.
  const show = document.getElementById("show");
  const text = show.dataset;
  const csrf = show.querySelector("[name=csrfmiddlewaretoken]").value;
  const orders = new Map();
  const broken = new Set();
  let access = null;
  let latest = null;
  let timer = null;
  let polling = false;

  class Refused extends Error {}

  async function ask(path, body) {
    const response = await fetch(path, {
      method: "POST",
      headers: { "Content-Type": "application/json", "X-CSRFToken": csrf },
      body: JSON.stringify(body),
      signal: AbortSignal.timeout(TIMEOUT_MS),
    });
    return read(response);
  }

  async function read(response) {
    const isJSON = /json/.test(response.headers.get("Content-Type"));
    const body = isJSON ? await response.json() : null;
    if (!response.ok) {
      throw new Refused(body?.detail ?? `${response.status} ${response.statusText}`);
    }
    return body;
  }

  function fill(template, values) {
    return template.replace(/\{(\w+)\}/g, (_, name) => values[name]);
  }

  function duration(ms) {
    const known = Math.max(0, Math.round(ms));
    return known < 1000 ? `${known} ms` : `${(known / 1000).toFixed(1)} s`;
  }

  // --- Placing orders ---

  async function token() {
    access ??= (await ask(text.token, {})).access;
    return access;
  }

  async function send(body) {
    return fetch("/api/orders", {
      method: "POST",
      headers: { "Content-Type": "application/json", Authorization: `Bearer ${await token()}` },
      credentials: "omit",
      body,
      signal: AbortSignal.timeout(TIMEOUT_MS),
    });
  }

  async function place() {
    const clickedAt = Date.now();
    const started = performance.now();
    const product = 1 + Math.floor(Math.random() * 99);
    const body = JSON.stringify({ items: [{ productId: product, quantity: 1 + (product % 3), price: 1000 + product * 10 }] });
    try {
      let response = await send(body);
      if (response.status === 401) {
        access = null; // The token has expired, or make run was restarted.
        response = await send(body);
      }
      const order = await read(response);
      orders.set(order.id, { clickedAt, answeredMs: performance.now() - started, event: null });
      complain("place", null);
      draw();
      soon();
    } catch (error) {
      complain("place", error instanceof Refused ? error.message : text.textSiteAway);
    }
  }

  for (const button of show.querySelectorAll("[data-place]")) {
    button.addEventListener("click", () => {
      for (let left = Number(button.dataset.place); left > 0 && orders.size < MAX_ORDERS; left--) {
        place();
      }
    });
  }

  // --- Switches ---

  const switches = [...show.querySelectorAll("[role=switch]")];
  for (const one of switches) {
    one.addEventListener("click", async () => {
      const on = one.getAttribute("aria-checked") !== "true";
      try {
        Object.assign(latest, await ask(text.switch, { target: one.dataset.target, on }));
        complain("switch", null);
        draw();
        soon();
      } catch (error) {
        complain("switch", error instanceof Refused ? error.message : text.textSiteAway);
      }
    });
  }

  // --- State ---

  async function look() {
    clearTimeout(timer);
    if (polling || document.hidden) {
      return;
    }
    polling = true;
    try {
      latest = await ask(text.state, { orders: [...orders.keys()] });
      for (const event of latest.events) {
        const order = orders.get(event.orderId);
        if (order && event.sequence === 1) {
          order.event = event;
        }
      }
      complain("look", null);
      draw();
    } catch (error) {
      complain("look", error instanceof Refused ? error.message : text.textSiteAway);
    }
    polling = false;
    timer = setTimeout(look, isMoving() ? PAUSE_MS : IDLE_PAUSE_MS);
  }

  function soon() {
    clearTimeout(timer);
    timer = setTimeout(look, 30);
  }

  function isMoving() {
    if (latest === null) {
      return true;
    }
    const known = latest.counts;
    return known.underWay > 0 || known.orders < orders.size || latest.lag !== 0 || /ing$/.test(latest.consumer);
  }

  function complain(about, message) {
    const place = document.getElementById("trouble");
    message === null ? broken.delete(about) : broken.add(about);
    if (message !== null && place.textContent !== message) {
      place.textContent = message;
    }
    place.hidden = broken.size === 0;
  }

  // --- Drawing ---

  function draw() {
    if (latest === null) {
      return;
    }
    for (const place of show.querySelectorAll("[data-count]")) {
      const name = place.dataset.count;
      put(place, String((name === "lag" ? latest.lag : latest.counts[name]) ?? "–"));
    }
    for (const one of switches) {
      const state = latest[one.dataset.target];
      one.disabled = false;
      one.setAttribute("aria-checked", String(state === "on" || state === "starting"));
      one.closest("li").dataset.state = state;
      put(one.querySelector("[data-state-text]"), text[`text${state[0].toUpperCase()}${state.slice(1)}`]);
    }
    for (const stage of show.querySelectorAll("[data-waits]")) {
      const waiting = stage.dataset.waits === "lag" ? latest.lag : latest.counts.pending;
      stage.classList.toggle("waiting", waiting > 0);
    }
    for (const zero of show.querySelectorAll("[data-zero]")) {
      zero.classList.toggle("bad", latest.counts[zero.dataset.zero] > 0);
    }
    for (const button of show.querySelectorAll("[data-place]")) {
      button.disabled = orders.size >= MAX_ORDERS;
    }
    put(document.getElementById("say"), sentence());
    const newest = [...orders.keys()].sort((one, other) => other - one).slice(0, DETAILED_ORDERS);
    if (newest.length > 0) {
      const last = orders.get(newest[0]);
      put(show.querySelector("[data-note=answered]"), fill(text.textAnswered, { time: duration(last.answeredMs) }));
      show.querySelector("#journeys").hidden = false;
      show.querySelector(".journeys tbody").replaceChildren(...newest.map((id) => row(id, orders.get(id))));
    }
  }

  // An unchanged text is not set again, because screen readers would repeat it.
  function put(place, value) {
    if (place.textContent !== value) {
      place.textContent = value;
    }
  }

  function sentence() {
    const known = latest.counts;
    const brokerAway = latest.broker === "off";
    const consumerAway = latest.consumer === "off" || latest.consumer === "stopping";
    if (orders.size >= MAX_ORDERS) {
      return text.textFull;
    }
    if (brokerAway && consumerAway) {
      return fill(text.textBothAway, { n: known.underWay });
    }
    if (brokerAway) {
      return fill(text.textBrokerAway, { n: known.pending });
    }
    if (consumerAway) {
      return fill(text.textConsumerAway, { n: known.underWay - known.pending });
    }
    if (known.underWay > 0) {
      return fill(text.textUnderWay, { n: known.underWay });
    }
    return known.orders === 0 ? text.textIdle : fill(text.textArrived, known);
  }

  function row(id, order) {
    const line = document.createElement("tr");
    const head = document.createElement("th");
    head.scope = "row";
    head.textContent = fill(text.textOrder, { id });
    const event = order.event;
    line.append(
      head,
      cell(1, "done", fill(text.textAnswered, { time: duration(order.answeredMs) })),
      event?.recordedAt ? cell(2, "done", since(order, event.recordedAt)) : waiting(2, order, text.textOnItsWay),
      published(order, event),
      notified(order, event),
    );
    return line;
  }

  function published(order, event) {
    if (!event?.publishedAt) {
      return waiting(3, order, latest.broker === "off" ? text.textForBroker : text.textOnItsWay);
    }
    const path = event.path === "fast" ? text.textFast : text.textRelay;
    return cell(3, "done", since(order, event.publishedAt), fill(text.textPosition, { ...event, path }));
  }

  function notified(order, event) {
    if (event?.notifiedAt) {
      return cell(4, "done", since(order, event.notifiedAt));
    }
    if (event?.isDead) {
      return cell(4, "dead", text.textDead);
    }
    if (!event?.publishedAt) {
      return cell(4, "later", "–");
    }
    const reason = { on: text.textOnItsWay, starting: text.textOnItsWay }[latest.consumer] ?? text.textForConsumer;
    return waiting(4, order, latest.broker === "off" ? text.textForBroker : reason);
  }

  function since(order, moment) {
    return duration(Date.parse(moment) - order.clickedAt);
  }

  function waiting(column, order, reason) {
    return cell(column, "wait", duration(Date.now() - order.clickedAt), reason);
  }

  function cell(column, state, value, detail) {
    const made = document.createElement("td");
    made.className = state;
    // On narrow screens the cells of a row are stacked, so each cell shows its column's name.
    const label = show.querySelectorAll(".journeys thead th")[column].textContent;
    const parts = { span: label, strong: value, small: detail };
    for (const [tag, content] of Object.entries(parts)) {
      if (content) {
        made.append(Object.assign(document.createElement(tag), { textContent: content }));
      }
    }
    return made;
  }

  document.addEventListener("visibilitychange", look);
  token().catch((error) => complain("place", error instanceof Refused ? error.message : text.textSiteAway));
  look();
});
