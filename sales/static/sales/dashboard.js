"use strict";

// Polls the figures of the page *Sales*, and draws them.
document.addEventListener("DOMContentLoaded", () => {
  const TIMEOUT_MS = 8000;
  const COLOURS = { created: "#3b82f6", paid: "#10b981", cancelled: "#f59e0b", earlier: "#94a3b8" };
  const BANDS = { SURGE: "#a855f7", CANCELLATIONS: "#f59e0b", SILENCE: "#ef4444" };
  const page = document.getElementById("sales");
  let anomalies = [];
  let announced = null;

  // Marks the intervals of each anomaly, with its number in the list.
  const bands = {
    id: "bands",
    beforeDatasetsDraw(chart) {
      const { ctx, chartArea: area, scales } = chart;
      const half = area.width / Math.max(1, chart.data.labels.length) / 2;
      const numbers = new Map();
      anomalies.forEach((one, index) => {
        const left = Math.max(area.left, scales.x.getPixelForValue(one.first) - half);
        const right = Math.min(area.right, scales.x.getPixelForValue(one.last) + half);
        const colour = BANDS[one.rule];
        ctx.save();
        ctx.fillStyle = `color-mix(in srgb, ${colour} 22%, transparent)`;
        ctx.fillRect(left, area.top, right - left, area.height);
        ctx.fillStyle = colour;
        ctx.fillRect(left, area.top, right - left, 3);
        ctx.restore();
        const middle = Math.round((left + right) / 2);
        numbers.set(middle, [...(numbers.get(middle) ?? []), index + 1]);
      });
      ctx.save();
      ctx.font = "600 12px sans-serif";
      ctx.textAlign = "center";
      ctx.fillStyle = getComputedStyle(chart.canvas).color;
      for (const [middle, found] of numbers) {
        ctx.fillText(found.join(", "), middle, area.top - 6);
      }
      ctx.restore();
    },
  };

  // Unfold ships Chart.js.
  function chart(id, type, format) {
    return new Chart(document.getElementById(id), {
      type,
      data: { labels: [], datasets: [] },
      plugins: [bands],
      options: {
        animation: false,
        maintainAspectRatio: false,
        interaction: { mode: "index", intersect: false },
        layout: { padding: { top: 16 } },
        plugins: { legend: { display: true, position: "bottom", labels: { usePointStyle: true, pointStyleWidth: 24, boxHeight: 7 } } },
        scales: {
          x: { grid: { display: false }, ticks: { maxRotation: 0, autoSkipPadding: 16 } },
          y: { beginAtZero: true, suggestedMax: 5, ticks: { maxTicksLimit: 6, callback: format } },
        },
      },
    });
  }

  const language = document.documentElement.lang;
  const compact = new Intl.NumberFormat(language, { notation: "compact", maximumFractionDigits: 1 });
  const charts = {
    amounts: chart("sales-amounts", "line", (value) => compact.format(value)),
    counts: chart("sales-counts", "bar", (value) => (Number.isInteger(value) ? compact.format(value) : null)),
  };

  function draw(chart, labels, datasets) {
    chart.data.labels = labels;
    chart.data.datasets = datasets;
    // The colours of the theme, which a click changes.
    const text = getComputedStyle(chart.canvas).color;
    const { plugins, scales } = chart.options;
    plugins.legend.labels.color = scales.x.ticks.color = scales.y.ticks.color = text;
    scales.y.grid = { color: `color-mix(in srgb, ${text} 15%, transparent)` };
    chart.update();
  }

  function line(label, data, colour, more) {
    return { label, data, borderColor: colour, backgroundColor: colour, borderWidth: 2, pointStyle: "line", pointRadius: 0, tension: 0.25, cubicInterpolationMode: "monotone", ...more };
  }

  function element(tag, text, attributes = {}) {
    const made = document.createElement(tag);
    made.textContent = text;
    Object.entries(attributes).forEach(([name, value]) => made.setAttribute(name, value));
    return made;
  }

  function item(one) {
    const entry = document.createElement("li");
    const name = one.address ? element("a", one.name, { href: one.address }) : element("span", one.name);
    const when = document.createElement("span");
    when.innerHTML = one.when;
    when.className = "text-subtle";
    const label = document.createElement("strong");
    label.append(name);
    label.style.borderColor = BANDS[one.rule];
    entry.append(label, element("span", one.sentence), when);
    return entry;
  }

  function showAnomalies() {
    const list = page.querySelector('[data-anomalies="list"]');
    list.hidden = !anomalies.length;
    page.querySelector('[data-anomalies="none"]').hidden = anomalies.length > 0;
    list.replaceChildren(...anomalies.map(item));
    // A screen reader hears a new anomaly, and not each change of the figures.
    const newest = anomalies.length ? `${anomalies[0].name}: ${anomalies[0].sentence}` : "";
    if (announced !== null && newest !== announced) {
      page.querySelector("[data-announcement]").textContent = newest;
    }
    announced = newest;
  }

  function show(state) {
    for (const [name, card] of Object.entries(state.cards)) {
      for (const [value, text] of Object.entries(card)) {
        page.querySelector(`[data-card="${name}"] [data-value="${value}"]`).textContent = text;
      }
    }
    // A poll must not take the focus from a link of the list.
    if (JSON.stringify(state.anomalies) !== JSON.stringify(anomalies) || announced === null) {
      anomalies = state.anomalies;
      showAnomalies();
    }
    draw(charts.amounts, state.labels, [
      line(page.dataset.amount, state.amounts.now, COLOURS.created, {
        fill: "origin",
        backgroundColor: `color-mix(in srgb, ${COLOURS.created} 15%, transparent)`,
      }),
      line(page.dataset.earlier, state.amounts.earlier, COLOURS.earlier, { borderDash: [5, 4], borderWidth: 1.5 }),
    ]);
    draw(
      charts.counts,
      state.labels,
      ["created", "paid", "cancelled"].map((name) => ({
        label: page.dataset[name],
        data: state.counts[name],
        backgroundColor: COLOURS[name],
        pointStyle: "rectRounded",
        borderRadius: 2,
        categoryPercentage: 0.86,
        barPercentage: 1,
      })),
    );
    for (const [name, text] of Object.entries(state.texts)) {
      page.querySelector(`[data-text="${name}"]`).textContent = text;
    }
    const rows = state.table.map((cells) => {
      const row = document.createElement("tr");
      row.append(...cells.map((cell, index) => element("td", cell, index ? { class: "number" } : {})));
      return row;
    });
    page.querySelector("[data-table]").replaceChildren(...rows);
    page.querySelector("[data-figure=at]").innerHTML = state.at;
  }

  async function poll() {
    const trouble = page.querySelector('[data-trouble="site"]');
    try {
      const response = await fetch(page.dataset.state, { signal: AbortSignal.timeout(TIMEOUT_MS) });
      if (!response.ok || response.redirected) {
        throw new Error(response.statusText);
      }
      show(await response.json());
      trouble.hidden = true;
    } catch {
      trouble.hidden = false;
    }
    setTimeout(poll, Number(page.dataset.pauseMs));
  }

  poll();
});
