"use strict";

// Polls the pipeline's state, and shows it on the pipeline page and on admin's index. The index has no charts and no table.
document.addEventListener("DOMContentLoaded", () => {
  const POLL_PAUSE_MS = 2000;
  const TIMEOUT_MS = 8000;
  const COLOURS = ["#a855f7", "#10b981", "#f59e0b", "#3b82f6", "#ec4899", "#14b8a6"];
  const summary = document.querySelector(".pipeline-summary");
  if (!summary) {
    return;
  }
  const page = document.getElementById("pipeline");
  const charts = page && { minutes: chart("pipeline-minutes", "bar"), lag: chart("pipeline-lag", "line") };
  let announced = null;

  // Unfold ships Chart.js.
  function chart(id, type) {
    return new Chart(document.getElementById(id), {
      type,
      data: { labels: [], datasets: [] },
      options: {
        animation: false,
        maintainAspectRatio: false,
        plugins: { legend: { display: true, position: "bottom", labels: {} } },
        scales: {
          x: { grid: { display: false }, ticks: { maxRotation: 0, autoSkipPadding: 12 } },
          y: { beginAtZero: true, suggestedMax: 5, ticks: { precision: 0 } },
        },
      },
    });
  }

  function draw(chart, labels, values) {
    chart.data.labels = labels;
    chart.data.datasets = Object.entries(values).map(([label, data], index) => {
      const colour = COLOURS[index % COLOURS.length];
      const width = chart.config.type === "line" ? 2 : 0;
      // A value between two gaps has no line, so that it gets a point.
      const pointRadius = (at) => (data[at.dataIndex - 1] == null && data[at.dataIndex + 1] == null ? 2 : 0);
      return { label, data, borderColor: colour, backgroundColor: colour, borderWidth: width, pointRadius };
    });
    // The colours of the theme, which a click changes.
    const text = getComputedStyle(chart.canvas).color;
    const { plugins, scales } = chart.options;
    plugins.legend.labels.color = scales.x.ticks.color = scales.y.ticks.color = text;
    scales.y.grid = { color: `color-mix(in srgb, ${text} 20%, transparent)` };
    chart.update();
  }

  // The mark of a chart's axis. Other times come from the server, which names their zone.
  function mark(moment) {
    const options = { hour: "2-digit", minute: "2-digit", hourCycle: "h23" };
    return new Date(moment).toLocaleTimeString(document.documentElement.lang, options);
  }

  function say(element, text) {
    element.textContent = text ?? "–";
  }

  function showVerdict(verdict) {
    const box = summary.querySelector("[data-verdict]");
    box.dataset.level = verdict.level;
    say(box.querySelector("[data-sentence]"), verdict.sentence);
    const runbook = box.querySelector("[data-runbook]");
    runbook.hidden = !verdict.runbook;
    if (verdict.runbook) {
      runbook.href = verdict.runbook;
    }
    const others = box.querySelector("[data-others]");
    others.hidden = !verdict.others.length;
    others.replaceChildren(
      ...verdict.others.map((sentence) => {
        const item = document.createElement("li");
        item.textContent = sentence;
        return item;
      }),
    );
    // A screen reader hears changes of the level only, because the sentence's numbers change at every poll.
    if (verdict.level !== announced) {
      say(summary.querySelector("[data-announcement]"), verdict.sentence);
      announced = verdict.level;
    }
  }

  function showCards(cards) {
    for (const [name, card] of Object.entries(cards)) {
      const box = summary.querySelector(`[data-card="${name}"]`);
      box.dataset.level = card.level;
      say(box.querySelector("[data-figure]"), card.figure);
      say(box.querySelector("[data-note]"), card.note);
    }
  }

  function reader(members, partition) {
    const found = (members || []).find((member) => member.partitions.includes(partition));
    return found ? `${found.client_id} (${found.host})` : "–";
  }

  function row(group, one) {
    const line = document.createElement("tr");
    const cells = [group.group, one.topic, one.partition, one.current_offset, one.end_offset, one.lag, one.seconds_behind];
    for (const value of [...cells, reader(group.members, one.partition)]) {
      say(line.insertCell(), value);
    }
    return line;
  }

  function rowOfWork(one) {
    const line = document.createElement("tr");
    const kind = document.createElement(one.rows ? "a" : "span");
    kind.translate = false;
    say(kind, one.kind);
    if (one.rows) {
      kind.href = one.rows;
      kind.className = "row-link";
    }
    line.insertCell().append(kind);
    for (const value of [one.pending, one.oldest, one.overdue, one.failed]) {
      say(line.insertCell(), value || null);
    }
    return line;
  }

  function showMembers(groups, isUp) {
    const known = groups.filter((group) => group.members !== null);
    page.querySelector('[data-members="known"]').hidden = !known.length;
    page.querySelector('[data-members="unknown"]').hidden = known.length > 0 || !isUp;
    say(page.querySelector("[data-figure=members]"), known.reduce((sum, group) => sum + group.members.length, 0));
  }

  function showDetails(state) {
    page.querySelector("[data-figure=at]").innerHTML = state.at;
    showMembers(state.groups, state.kafka === "up");
    const rows = state.groups.flatMap((group) => group.partitions.map((one) => row(group, one)));
    document.getElementById("pipeline-partitions").replaceChildren(...rows);
    document.getElementById("pipeline-work").replaceChildren(...state.work.map(rowOfWork));
    for (const [name, text] of Object.entries(state.texts)) {
      say(page.querySelector(`[data-text="${name}"]`), text);
    }
    const perMinute = { [page.dataset.published]: state.minutes.map((one) => one.published) };
    for (const group of Object.keys(state.minutes[0].handled)) {
      perMinute[group] = state.minutes.map((one) => one.handled[group]);
    }
    draw(charts.minutes, state.minutes.map((one) => mark(one.start)), perMinute);
    const start = Date.parse(state.lag.start);
    const slots = Array.from({ length: state.lag.slots }, (_, number) =>
      mark(start + number * state.lag.slotSeconds * 1000),
    );
    draw(charts.lag, slots, state.lag.groups);
  }

  async function poll() {
    const trouble = summary.querySelector('[data-trouble="site"]');
    try {
      const response = await fetch(summary.dataset.state, { signal: AbortSignal.timeout(TIMEOUT_MS) });
      if (!response.ok || response.redirected) {
        throw new Error(response.statusText);
      }
      const state = await response.json();
      showVerdict(state.verdict);
      showCards(state.cards);
      if (page) {
        showDetails(state);
      }
      trouble.hidden = true;
    } catch {
      trouble.hidden = false;
    }
    setTimeout(poll, POLL_PAUSE_MS);
  }

  poll();
});
