"""The files for Prometheus and Grafana agree with each other, and use only metrics that the product exports."""

import json
import re
from collections.abc import Iterator
from typing import Any

import yaml
from prometheus_client import REGISTRY

from commerce.operations.thresholds import ALERTS, RECENT_MINUTES
from events.kafka.lag import PartitionLag
from events.observing.readings import Outbox, _lag_gauges, _outbox_gauges
from events.work.gauges import _gauges as _work_gauges
from events.work.kinds import kinds
from events.work.models import Backlog
from fulfilment.gauges import Unfinished, gauges_of
from sales.anomalies.gauges import Watched
from sales.anomalies.gauges import gauges as anomaly_gauges
from testkit.processes import CHECKOUT

PROMETHEUS = CHECKOUT / "deploy" / "prometheus"
GRAFANA = CHECKOUT / "deploy" / "grafana"
COMPOSE = yaml.safe_load((CHECKOUT / "docker-compose.yml").read_text())
NAMES = re.compile(r"\b((?:kafka|outbox|events?|consumer|email|sales|fulfilments?|payments|shipping)_[a-z_]+)\b")
UNSEEN_BY_THE_PAGE = {
    "RelayGone": "The page shows what a relay leaves: pending events that grow old.",
    "SalesConsumerGone": "The page says of every group that no consumer is running, as `ConsumerGone` says of one.",
    "SalesAnomaly": "The page Sales shows anomalies.",
    "SalesNotJudged": "The watchers wait until the sums are complete; the page shows the lag that delays them.",
    "WatcherGone": "The page is about events, and the watchers only read their sums.",
    "MailerGone": "The page shows what a mailer leaves: pending e-mails that grow old.",
    "FulfilmentConsumerGone": "The page says of every group that no consumer is running.",
    "WorkerGone": "The page shows what a worker leaves: commands that wait, and deadlines that have passed.",
    "FulfilmentsTooOld": "The page is about events. The list of fulfilments shows their age.",
    "EventsLostToRetention": "Consumers count these records; no row and no offset has them.",
}
ABOUT_ABSENCE = ("ConsumerGone", "PipelineUnknown")
LABEL_LISTS = re.compile(r"\{[^}]*\}|\b(?:by|on) \([^)]*\)")


def metric_names() -> set[str]:
    """Return the names of all metrics that the product exports."""
    gauges = [
        *_outbox_gauges(Outbox(0, 0.0)),
        *_lag_gauges({"g": [PartitionLag("t", 0, 1, 1, 0, 0.0)]}),
        *(gauge for kind in kinds() for gauge in _work_gauges(kind.name, Backlog(0, 0.0))),
        *gauges_of(Unfinished({}, 0.0)),
        *anomaly_gauges(Watched({}, 0.0)),
    ]
    counted = {sample.name for metric in REGISTRY.collect() for sample in metric.samples}
    families = {
        f"{metric.name}{suffix}"
        for metric in REGISTRY.collect()
        for suffix in ({"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"]}.get(metric.type, []))
    }
    return counted | families | {f"{gauge.name}{'_total' if gauge.type == 'counter' else ''}" for gauge in gauges}


def rules() -> list[dict[str, Any]]:
    (group,) = yaml.safe_load((PROMETHEUS / "alerts.yml").read_text())["groups"]
    return group["rules"]


def panels() -> list[dict[str, Any]]:
    return json.loads((GRAFANA / "dashboards" / "events.json").read_text())["panels"]


def expressions() -> Iterator[str]:
    yield from (rule["expr"] for rule in rules())
    yield from (target["expr"] for panel in panels() for target in panel["targets"])


def test_every_metric_that_is_asked_for_exists() -> None:
    asked = {name for one in expressions() for name in NAMES.findall(LABEL_LISTS.sub("", one))}
    assert {"kafka_consumergroup_lag_seconds", "outbox_oldest_pending_seconds", "events_consumed_total"} <= asked
    assert {"email_oldest_pending_seconds", "email_deliveries_total"} <= asked
    assert asked <= metric_names()


def test_every_alert_leads_to_its_section_of_the_runbook() -> None:
    runbook = (CHECKOUT / "docs" / "operations.md").read_text()
    sections = {
        "docs/operations.md#" + re.sub("[^a-z0-9 -]", "", title.lower()).replace(" ", "-")
        for title in re.findall("^## (.+)$", runbook, re.MULTILINE)
    }
    assert {"LagGrows", "OldestPendingTooOld", "DeadLetters", "ConsumerGone"} <= {rule["alert"] for rule in rules()}
    for rule in rules():
        assert rule["annotations"]["runbook"] in sections, rule["alert"]
        assert f"`{rule['alert']}`" in runbook


def test_the_page_has_the_thresholds_of_the_alerts() -> None:
    known = {alert.name: alert for alert in ALERTS}
    assert {rule["alert"] for rule in rules()} - known.keys() == UNSEEN_BY_THE_PAGE.keys()
    for rule in rules():
        if (alert := known.pop(rule["alert"], None)) is None:
            continue
        assert rule["labels"]["severity"] == alert.severity, alert.name
        assert rule["annotations"]["runbook"] == f"docs/operations.md#{alert.section}"
        # An alert without a comparison is about something that is absent.
        numbers = re.findall(r"> *([0-9.]+)", rule["expr"])
        assert {float(number) for number in numbers} == (set() if alert.name in ABOUT_ABSENCE else {alert.above})
    assert known == {}


def test_recent_means_the_same_in_every_alert() -> None:
    windows = {window for rule in rules() for window in re.findall(r"\[(\w+)\]|offset (\w+)", rule["expr"])}
    assert {one or other for one, other in windows} == {f"{RECENT_MINUTES}m"}


def test_the_image_has_the_runbook() -> None:
    """Admin shows docs/, so the Dockerfile copies it, and .dockerignore lets it in."""
    assert "\nCOPY docs docs/\n" in (CHECKOUT / "deploy" / "Dockerfile").read_text()
    let_in = (CHECKOUT / ".dockerignore").read_text().splitlines()
    assert "!docs" in let_in
    assert [line for line in let_in if line.startswith("docs") and ".md" in line] == []


def test_the_scraped_services_are_those_of_compose() -> None:
    jobs = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())["scrape_configs"]
    services = {"web", "consumer", "sales", "relay", "mailer", "watcher", "fulfilment", "worker"}
    assert {job["job_name"] for job in jobs} == services
    for job in jobs:
        for lookup in job.get("dns_sd_configs", []):
            (service,) = lookup["names"]
            assert f"--metrics-port={lookup['port']}" in COMPOSE["services"][service]["command"]


def test_prometheus_and_grafana_start_with_their_profile_alone() -> None:
    services = COMPOSE["services"].items()
    with_profile = {name for name, service in services if "observability" in service.get("profiles", [])}
    assert with_profile == {"prometheus", "grafana"}
    for name in with_profile:
        service = COMPOSE["services"][name]
        assert service["profiles"] == ["observability"]
        assert {"restart", "mem_limit", "healthcheck"} <= service.keys()
        for volume in service["volumes"]:
            source = volume.split(":")[0]
            assert source in COMPOSE["volumes"] or (CHECKOUT / source).exists(), source


def test_the_dashboard_reads_the_provisioned_source() -> None:
    provisioned = yaml.safe_load((GRAFANA / "provisioning" / "datasources" / "prometheus.yml").read_text())
    (source,) = provisioned["datasources"]
    assert {panel["datasource"]["uid"] for panel in panels()} == {source["uid"]}
