"use strict";

// Polls the pipeline's state and shows it. Unfold ships Chart.js.
document.addEventListener("DOMContentLoaded", () => {
  const POLL_PAUSE_MS = 2000;
  const TIMEOUT_MS = 8000;
  const LAG_POINTS = 150;
  const page = document.getElementById("pipeline");
  const COLOURS = ["#a855f7", "#10b981", "#f59e0b", "#3b82f6", "#ec4899", "#14b8a6"];
  const minutes = chart("pipeline-minutes", "bar");
  const lag = chart("pipeline-lag", "line");

  function series(chart, label) {
    let found = chart.data.datasets.find((one) => one.label === label);
    if (!found) {
      const colour = COLOURS[chart.data.datasets.length % COLOURS.length];
      const width = chart.config.type === "line" ? 2 : 0;
      found = { label, data: [], borderColor: colour, backgroundColor: colour, borderWidth: width, pointRadius: 0 };
      chart.data.datasets.push(found);
    }
    return found;
  }

  function chart(id, type) {
    return new Chart(document.getElementById(id), {
      type,
      data: { labels: [], datasets: [] },
      options: {
        animation: false,
        maintainAspectRatio: false,
        plugins: { legend: { display: true, position: "bottom" } },
        scales: { x: { grid: { display: false }, ticks: { maxRotation: 0, autoSkipPadding: 12 } }, y: { beginAtZero: true, ticks: { precision: 0 } } },
      },
    });
  }

  function time(text, options) {
    return new Date(text).toLocaleTimeString(document.documentElement.lang, { hourCycle: "h23", ...options });
  }

  function say(figure, value) {
    page.querySelector(`[data-figure="${figure}"]`).textContent = value ?? "–";
  }

  function trouble(name, isThere) {
    page.querySelector(`[data-trouble="${name}"]`).hidden = !isThere;
  }

  function reader(members, partition) {
    const found = (members || []).find((member) => member.partitions.includes(partition));
    return found ? `${found.client_id} (${found.host})` : "–";
  }

  function row(group, one) {
    const line = document.createElement("tr");
    const cells = [group.group, one.topic, one.partition, one.current_offset, one.end_offset, one.lag, one.seconds_behind];
    for (const value of [...cells, reader(group.members, one.partition)]) {
      line.insertCell().textContent = value ?? "–";
    }
    return line;
  }

  function lagOf(group) {
    return group.partitions.reduce((sum, one) => sum + (one.lag ?? 0), 0);
  }

  function show(state) {
    const isUp = state.kafka === "up";
    const total = isUp ? state.groups.reduce((sum, group) => sum + lagOf(group), 0) : null;
    trouble("kafka", !isUp);
    say("lag", total);
    say("pending", state.outbox.pending);
    say("oldest", state.outbox.oldestSeconds);
    say("parked", state.outbox.parked);
    say("deadLetters", state.deadLetters);
    say("at", time(state.at, { hour: "2-digit", minute: "2-digit", second: "2-digit", timeZoneName: "short" }));
    const known = state.groups.filter((group) => group.members !== null);
    page.querySelector('[data-members="known"]').hidden = !known.length;
    page.querySelector('[data-members="unknown"]').hidden = known.length > 0 || !isUp;
    say("members", known.reduce((sum, group) => sum + group.members.length, 0));
    const rows = state.groups.flatMap((group) => group.partitions.map((one) => row(group, one)));
    document.getElementById("pipeline-partitions").replaceChildren(...rows);

    minutes.data.labels = state.minutes.map((one) => time(one.minute, { hour: "2-digit", minute: "2-digit" }));
    series(minutes, page.dataset.published).data = state.minutes.map((one) => one.published);
    for (const group of Object.keys(state.minutes[0].handled)) {
      series(minutes, group).data = state.minutes.map((one) => one.handled[group]);
    }
    minutes.update();
    lag.data.labels = [...lag.data.labels, time(state.at)].slice(-LAG_POINTS);
    for (const group of state.groups) {
      series(lag, group.group);
    }
    for (const one of lag.data.datasets) {
      const group = state.groups.find((found) => found.group === one.label);
      const missing = Array(Math.max(0, lag.data.labels.length - 1 - one.data.length)).fill(null);
      one.data = [...missing, ...one.data, group ? lagOf(group) : null].slice(-LAG_POINTS);
    }
    lag.update();
  }

  async function poll() {
    try {
      const response = await fetch(page.dataset.state, { signal: AbortSignal.timeout(TIMEOUT_MS) });
      if (!response.ok || response.redirected) {
        throw new Error(response.statusText);
      }
      show(await response.json());
      trouble("site", false);
    } catch {
      trouble("site", true);
    }
    setTimeout(poll, POLL_PAUSE_MS);
  }

  poll();
});
