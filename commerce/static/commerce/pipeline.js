"use strict";

// Asks for the pipeline's state again and again, and shows it. Drawn by the Chart.js that Unfold brings along.
document.addEventListener("DOMContentLoaded", () => {
  const PAUSE_MS = 2000;
  const PATIENCE_MS = 8000;
  const LAG_POINTS = 150;
  const page = document.getElementById("pipeline");
  const colours = { published: "#a855f7", handled: "#10b981", lag: "#f59e0b" };
  const minutes = chart("pipeline-minutes", "bar", ["published", "handled"]);
  const lag = chart("pipeline-lag", "line", ["lag"]);

  function chart(id, type, names) {
    const datasets = names.map((name) => ({
      label: page.dataset[name],
      data: [],
      borderColor: colours[name],
      backgroundColor: colours[name],
      borderWidth: type === "line" ? 2 : 0,
      pointRadius: 0,
    }));
    return new Chart(document.getElementById(id), {
      type,
      data: { labels: [], datasets },
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

  function row(state, one) {
    const line = document.createElement("tr");
    const cells = [one.topic, one.partition, one.current_offset, one.end_offset, one.lag, one.seconds_behind];
    for (const value of [...cells, reader(state.members, one.partition)]) {
      line.insertCell().textContent = value ?? "–";
    }
    return line;
  }

  function show(state) {
    const isUp = state.kafka === "up";
    const total = isUp ? state.partitions.reduce((sum, one) => sum + (one.lag ?? 0), 0) : null;
    trouble("kafka", !isUp);
    say("lag", total);
    say("pending", state.outbox.pending);
    say("oldest", state.outbox.oldestSeconds);
    say("parked", state.outbox.parked);
    say("deadLetters", state.deadLetters);
    say("group", state.group);
    say("at", time(state.at, { hour: "2-digit", minute: "2-digit", second: "2-digit", timeZoneName: "short" }));
    const tells = state.members !== null;
    page.querySelector('[data-members="known"]').hidden = !tells;
    page.querySelector('[data-members="unknown"]').hidden = tells || !isUp;
    say("members", (state.members || []).length);
    document.getElementById("pipeline-partitions").replaceChildren(...state.partitions.map((one) => row(state, one)));

    minutes.data.labels = state.minutes.map((one) => time(one.minute, { hour: "2-digit", minute: "2-digit" }));
    minutes.data.datasets[0].data = state.minutes.map((one) => one.published);
    minutes.data.datasets[1].data = state.minutes.map((one) => one.handled);
    minutes.update();
    lag.data.labels = [...lag.data.labels, time(state.at)].slice(-LAG_POINTS);
    lag.data.datasets[0].data = [...lag.data.datasets[0].data, total].slice(-LAG_POINTS);
    lag.update();
  }

  async function look() {
    try {
      const response = await fetch(page.dataset.state, { signal: AbortSignal.timeout(PATIENCE_MS) });
      if (!response.ok || response.redirected) {
        throw new Error(response.statusText);
      }
      show(await response.json());
      trouble("site", false);
    } catch {
      trouble("site", true);
    }
    setTimeout(look, PAUSE_MS);
  }

  look();
});
