"""Every workload of deploy/kubernetes has what docs/kubernetes.md promises."""

import re
from pathlib import Path
from typing import Any

import kubernetes_validate.utils
import pytest
from django.conf import settings

from events.subscriptions import subscriptions
from testkit.processes import CHECKOUT
from tests.repository.ways_to_run import COMPOSE, OVERLAYS, app, pods, rendered, resources, running

WRITABLE_ROOT = {"kafka"}
"""Workloads of the overlay `trial` whose container may write to its root file system, because its image needs to."""
KEDA = {"ScaledObject", "TriggerAuthentication"}
OWN_PODS = "app.kubernetes.io/part-of"
TRIGGER = {
    "allowIdleConsumers": "false",
    "bootstrapServersFromEnv": "KAFKA_BOOTSTRAP_SERVERS",
    "excludePersistentLag": "false",
    "lagThreshold": "1000",
    "limitToPartitionsWithLag": "false",
    "offsetResetPolicy": "earliest",
    "sasl": "scram_sha512",
    "tls": "enable",
}
"""Parameters of KEDA's trigger `kafka`. KEDA ignores one that it does not know, so the names are checked here.

Source: https://keda.sh/docs/2.18/scalers/apache-kafka/
"""


def containers(overlay: str) -> list[tuple[str, dict[str, Any], dict[str, Any]]]:
    """Return (name of the workload, specification of the pod, container) for all containers."""
    return [
        (name, pod["spec"], container)
        for name, pod in pods(overlay).items()
        for container in [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]
    ]


def groups(overlay: str) -> set[str]:
    """Return the names of the Deployments that run a consumer group."""
    return {one.name for one in running(overlay) if one.command.startswith("consume")}


def test_lint_uses_all_schemas_from_1_31_on() -> None:
    (line,) = re.findall(r"^KUBERNETES := (.+)$", (CHECKOUT / "Makefile").read_text(), re.MULTILINE)
    known = {kubernetes_validate.utils.major_minor(version) for version in kubernetes_validate.utils.all_versions()}
    newer = {text for text in known if tuple(map(int, text.split("."))) >= (1, 31)}
    assert set(line.split()) == newer


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_lint_has_a_schema_for_all_kinds_but_kedas(overlay: str) -> None:
    """kubernetes-validate skips a kind without a schema."""
    schemas = Path(kubernetes_validate.__file__).parent / "kubernetes-json-schema"
    for version in ("1.31.0", kubernetes_validate.utils.latest_version()):
        folder = schemas / f"v{version}-local-strict"
        known = {path.name.partition("-")[0] for path in folder.glob("*.json")}
        unknown = {one["kind"] for one in rendered(overlay) if one["kind"].lower() not in known}
        assert unknown == {"trial": set(), "production": KEDA}[overlay]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_container_has_requests_and_limits(overlay: str) -> None:
    for name, _, container in containers(overlay):
        for bound in ("requests", "limits"):
            assert container["resources"][bound].keys() == {"cpu", "memory"}, (name, container["name"])


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_no_container_has_more_rights_than_it_needs(overlay: str) -> None:
    for name, pod, container in containers(overlay):
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] > 0
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["automountServiceAccountToken"] is False
        own = container["securityContext"]
        assert own["capabilities"] == {"drop": ["ALL"]}
        assert own["allowPrivilegeEscalation"] is False
        assert own["readOnlyRootFilesystem"] is (name not in WRITABLE_ROOT)
    (account,) = resources(overlay, "ServiceAccount").values()
    assert account["automountServiceAccountToken"] is False
    ours = [pod["spec"] for pod in pods(overlay, "Deployment", "Job", "CronJob").values()]
    assert {one["serviceAccountName"] for one in ours} == {account["metadata"]["name"]}
    assert all(one["shareProcessNamespace"] for one in ours), "Python must not be process 1"


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_deployment_spreads_and_survives_drains(overlay: str) -> None:
    budgets = resources(overlay, "PodDisruptionBudget")
    deployments = resources(overlay, "Deployment")
    assert budgets.keys() == deployments.keys()
    for name, deployment in deployments.items():
        template, selector = deployment["spec"]["template"], deployment["spec"]["selector"]
        assert selector["matchLabels"].items() <= template["metadata"]["labels"].items()
        assert budgets[name]["spec"]["selector"] == selector
        assert budgets[name]["spec"]["maxUnavailable"] == 1
        spread = template["spec"]["topologySpreadConstraints"]
        assert {one["topologyKey"] for one in spread} == {"kubernetes.io/hostname", "topology.kubernetes.io/zone"}
        for one in spread:
            assert one["labelSelector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
            assert "app.kubernetes.io/name" in one["matchLabelKeys"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_a_rollout_never_adds_an_idle_member(overlay: str) -> None:
    for name, deployment in resources(overlay, "Deployment").items():
        rollout = deployment["spec"].get("strategy", {}).get("rollingUpdate", {})
        assert (rollout.get("maxSurge") == 0) is (name in groups(overlay))


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_deployment_waits_for_migrations(overlay: str) -> None:
    for pod in pods(overlay, "Deployment").values():
        (waiting,) = (one for one in pod["spec"]["initContainers"] if one["name"] == "wait-for-migrations")
        assert waiting["command"] == ["python", "manage.py", "migrate", "--check"]
        assert waiting["envFrom"] == app(pod)["envFrom"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_foreign_images_are_those_of_compose(overlay: str) -> None:
    foreign = {one["image"] for _, _, one in containers(overlay) if "commerce" not in one["image"]}
    of_compose = {service["image"] for service in COMPOSE["services"].values()}
    assert foreign
    assert foreign <= of_compose
    assert all(re.fullmatch(r"\S+:\S+@sha256:[0-9a-f]{64}", image) for image in foreign)


def test_kedas_objects_scale_every_group_by_its_topic() -> None:
    objects = resources("production", "ScaledObject")
    assert objects.keys() == groups("production")
    partitions = int(resources("production", "ConfigMap")["settings"]["data"]["KAFKA_TOPIC_PARTITIONS"])
    scaled = {}
    for name, one in objects.items():
        spec = one["spec"]
        assert spec["scaleTargetRef"] == {"name": name, "envSourceContainerName": "app"}
        assert (spec["minReplicaCount"], spec["maxReplicaCount"]) == (1, partitions)
        assert spec["fallback"]["replicas"] == partitions
        (trigger,) = spec["triggers"]
        assert trigger["type"] == "kafka"
        metadata = dict(trigger["metadata"])
        scaled[metadata.pop("consumerGroup")] = metadata.pop("topic")
        assert metadata == TRIGGER
        assert trigger["authenticationRef"]["name"] in resources("production", "TriggerAuthentication")
        assert "replicas" not in resources("production", "Deployment")[name]["spec"]
    assert scaled == {one.group: one.topic.name for one in subscriptions()}


def test_keda_logs_in_as_the_settings_say() -> None:
    given = resources("production", "ConfigMap")["settings"]["data"]
    mechanisms = {"SCRAM-SHA-512": "scram_sha512", "SCRAM-SHA-256": "scram_sha256", "PLAIN": "plaintext"}
    assert TRIGGER["sasl"] == mechanisms[given["KAFKA_SASL_MECHANISM"]]
    assert (TRIGGER["tls"] == "enable") is given["KAFKA_SECURITY_PROTOCOL"].endswith("SSL")


def test_no_way_to_the_site_lets_a_larger_body_through() -> None:
    limit = f"{settings.DATA_UPLOAD_MAX_MEMORY_SIZE // 1024}k"
    nginx = (CHECKOUT / "deploy/nginx/nginx.conf").read_text()
    assert re.findall(r"client_max_body_size (\d+k);", nginx) == [limit]
    annotations = resources("production", "Ingress")["web"]["metadata"]["annotations"]
    prefix = "nginx.ingress.kubernetes.io/"
    assert annotations[f"{prefix}proxy-body-size"] == limit
    assert annotations[f"{prefix}proxy-request-buffering"] == annotations[f"{prefix}proxy-buffering"] == "on"
    assert annotations[f"{prefix}proxy-next-upstream"] == "off"
    waits = int(re.findall(r"proxy_read_timeout (\d+)s;", nginx)[0])
    assert int(annotations[f"{prefix}proxy-read-timeout"]) > waits, "the proxy in the pod should answer 504 first"


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_network_refuses_what_no_policy_allows(overlay: str) -> None:
    policies = resources(overlay, "NetworkPolicy")
    by_default = policies["refuse-by-default"]["spec"]
    assert by_default.keys() == {"podSelector", "policyTypes"}
    assert set(by_default["policyTypes"]) == {"Ingress", "Egress"}
    everything = [pod["metadata"]["labels"] for pod in pods(overlay).values()]
    ours = [labels for labels in everything if OWN_PODS in labels]
    assert all(by_default["podSelector"]["matchLabels"].items() <= labels.items() for labels in ours)
    covered = [one["spec"]["podSelector"]["matchLabels"].items() for one in policies.values()]
    assert all(any(selector <= labels.items() for selector in covered) for labels in everything)
    assert all(any(selector <= labels.items() for labels in everything) for selector in covered)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_policies_name_ports_that_containers_have(overlay: str) -> None:
    rules = [rule for one in resources(overlay, "NetworkPolicy").values() for rule in one["spec"].get("ingress", [])]
    named = {port["port"] for rule in rules for port in rule["ports"]}
    declared = [port for _, _, one in containers(overlay) for port in one.get("ports", [])]
    assert named
    assert named <= {one["name"] for one in declared} | {one["containerPort"] for one in declared}


def test_the_image_runs_as_the_user_of_the_manifests() -> None:
    (user,) = re.findall(r"^USER (\d+)$", (CHECKOUT / "deploy/Dockerfile").read_text(), re.MULTILINE)
    ours = pods("production")
    assert {pod["spec"]["securityContext"]["runAsUser"] for pod in ours.values()} == {int(user)}
