"""docker compose, Kubernetes and `make run` each start all of the product.

That is the web server, the relay, the watcher of sales, every consumer group and every kind of leased work.
"""

import re
import shlex
from typing import Any

import pytest
from django.core.management import get_commands, load_command_class
from django.urls import resolve

from commerce.devserver import supervisor
from events.process.shutdown import GRACE_S
from events.subscriptions import subscriptions
from events.work.kinds import kinds
from manage import RUN_UNTIL_SIGNAL
from testkit.processes import CHECKOUT
from tests.repository.test_compose import DOCUMENTED, SECRETS, settings_with
from tests.repository.ways_to_run import (
    COMPOSE,
    OF_COMPOSE,
    OVERLAYS,
    WAYS,
    WEB_SERVER,
    Process,
    app,
    pods,
    resources,
    running,
)

OWN_COMMANDS = {name for name, path in get_commands().items() if not path.startswith(("django.", "rest_framework"))}
METRICS_PORT = 9101
SUPERVISORS_ALLOW_S = 10
NGINX = CHECKOUT / "deploy" / "nginx"
OF_KUBERNETES = {"POD_IP", "HOSTS_OF_SITE"}
"""Variables that only the manifests have. They make up DJANGO_ALLOWED_HOSTS."""


def loops(way: str) -> list[Process]:
    return [one for one in running(way) if one.command != WEB_SERVER]


def environment(overlay: str, pod: dict[str, Any]) -> dict[str, str]:
    """Return a pod's variables from its ConfigMap, and its own ones as the kubelet expands them, but no secrets."""
    container, settings = app(pod), resources(overlay, "ConfigMap")["settings"]
    assert container["envFrom"][0]["configMapRef"]["name"] == settings["metadata"]["name"]
    given, own = dict(settings["data"]), {"POD_IP": "10.0.0.9"}
    for variable in container.get("env", []):
        if "value" in variable:
            own[variable["name"]] = re.sub(r"\$\((\w+)\)", lambda found: own[found[1]], variable["value"])
        elif "configMapKeyRef" in variable["valueFrom"]:
            own[variable["name"]] = settings["data"][variable["valueFrom"]["configMapKeyRef"]["key"]]
    return given | own


@pytest.mark.parametrize("way", WAYS)
def test_each_way_starts_all_work_once(way: str) -> None:
    started = [work for one in running(way) for work in one.work]
    groups = {f"group {one.group}" for one in subscriptions()}
    work = {f"work {one.name}" for one in kinds()}
    assert len(groups) >= 5
    assert len(work) >= 4
    assert sorted(started) == sorted(groups | work | {WEB_SERVER, "relay_outbox", "watch_sales"})


def test_every_command_that_runs_on_is_started() -> None:
    """Commands with `--liveness-file` run until a signal. At least one way to run the product starts each of them.

    Not every way starts all of them, because `work` and `consume` can do the work of the others.
    """
    run_on = {
        name
        for name in OWN_COMMANDS
        if any(
            "--liveness-file" in action.option_strings
            for action in load_command_class(get_commands()[name], name).create_parser("manage.py", name)._actions
        )
    }
    assert run_on == {one.command for way in WAYS for one in loops(way)}
    assert run_on == set(RUN_UNTIL_SIGNAL)


@pytest.mark.parametrize("way", ["compose", *OVERLAYS])
def test_metrics_have_the_port_that_prometheus_reads(way: str) -> None:
    assert {one.options["metrics_port"] for one in loops(way)} == {METRICS_PORT}
    scraped = re.findall(r"^ +port: (\d+)$", (CHECKOUT / "deploy/prometheus/prometheus.yml").read_text(), re.MULTILINE)
    assert set(scraped) == {str(METRICS_PORT)}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_pods_declare_the_metrics_port(overlay: str) -> None:
    declared = pods(overlay, "Deployment")
    for one in loops(overlay):
        assert app(declared[one.name])["ports"] == [{"name": "metrics", "containerPort": METRICS_PORT}]


def test_all_health_checks_of_loops_are_one_command() -> None:
    """In compose and Kubernetes, the health check of every long-running command is the same shell command.

    This shell command reads the age of every liveness file. The age that it allows is at least the two minutes that the
    help of `--liveness-file` names.
    """
    checks = {OF_COMPOSE[one.name]["healthcheck"]["test"].replace("$$", "$") for one in loops("compose")}
    for overlay in OVERLAYS:
        declared = pods(overlay, "Deployment")
        for one in loops(overlay):
            for probe in ("startupProbe", "livenessProbe"):
                *shell, check = app(declared[one.name])[probe]["exec"]["command"]
                assert shell == ["sh", "-c"]
                checks.add(check)
    (check,) = checks
    files = {one.options["liveness_file"] for way in ("compose", *OVERLAYS) for one in loops(way)}
    assert {str(file) for file in files} == set(re.findall(r"stat -c %Y ([^)]+)\)", check))
    assert int(check.rpartition(" -lt ")[2]) >= 120


def test_compose_and_kubernetes_prepare_in_the_same_way() -> None:
    commands = [OF_COMPOSE["migrate"]["command"], *(app(pods(one)["migrate"])["command"] for one in OVERLAYS)]
    assert all(one == commands[0] for one in commands)
    steps = [shlex.split(step) for step in commands[0][2].split("&&")]
    assert [Process("migrate", tuple(step[1:])).command for step in steps] == ["migrate", "create_topics"]
    for step in steps:
        assert Process("migrate", tuple(step[1:])).options


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_what_has_to_run_at_times_runs_at_times(overlay: str) -> None:
    at_times = [Process(name, tuple(app(pod)["command"][1:])) for name, pod in pods(overlay, "CronJob").items()]
    daily = {name for name in OWN_COMMANDS if name.startswith(("prune_", "verify_"))}
    assert {one.command for one in at_times} == daily | {"reconcile_events"}
    for one in at_times:
        assert one.options
        assert one.name == one.command.replace("_", "-")


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_files_are_named_after_their_workload(overlay: str) -> None:
    base = CHECKOUT / "deploy/kubernetes/base"
    ours = pods(overlay, "Deployment", "Job", "CronJob")
    assert {name for name in ours if f"\n  name: {name}\n" not in (base / f"{name}.yaml").read_text()} == set()


def test_processes_get_the_time_they_need_to_end() -> None:
    assert GRACE_S < SUPERVISORS_ALLOW_S <= supervisor.STOP_TIMEOUT_S
    for service in OF_COMPOSE.values():
        assert float(service["stop_grace_period"].removesuffix("s")) > SUPERVISORS_ALLOW_S
    for overlay in OVERLAYS:
        for pod in pods(overlay, "Deployment", "Job", "CronJob").values():
            before = app(pod).get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
            assert pod["spec"]["terminationGracePeriodSeconds"] - before > SUPERVISORS_ALLOW_S


def port_of_web_server(way: str) -> str:
    (web,) = (one for one in running(way) if one.command == WEB_SERVER)
    return web.words[-1].rpartition(":")[2]


def test_the_proxy_finds_the_web_server() -> None:
    server = re.compile(r"^server (\S+):(\d+)[ ;]", re.MULTILINE)
    image = (CHECKOUT / "deploy/Dockerfile").read_text()
    assert re.findall(r"^EXPOSE (\d+)$", image, re.MULTILINE) == [port_of_web_server("compose")]
    in_compose = server.findall((NGINX / "web-server.compose.conf").read_text())
    assert in_compose == [("web", port_of_web_server("compose"))]
    for overlay in OVERLAYS:
        in_pod = server.findall((NGINX / "web-server.kubernetes.conf").read_text())
        assert in_pod == [("127.0.0.1", port_of_web_server(overlay))]
        ports = {one["name"]: str(one["containerPort"]) for one in app(pods(overlay)["web"])["ports"]}
        assert ports == {"web-server": port_of_web_server(overlay)}


def test_the_proxys_own_port_is_declared() -> None:
    listens = re.findall(r"^ +listen (\d+);", (NGINX / "nginx.conf").read_text(), re.MULTILINE)
    assert [port.rpartition(":")[2] for port in COMPOSE["services"]["proxy"]["ports"]] == listens
    for overlay in OVERLAYS:
        (proxy,) = (one for one in pods(overlay)["web"]["spec"]["initContainers"] if one["name"] == "proxy")
        assert [str(one["containerPort"]) for one in proxy["ports"] if one["name"] == "http"] == listens
        (port,) = resources(overlay, "Service")["web"]["spec"]["ports"]
        assert (port["targetPort"], str(port["port"])) == ("http", listens[0])
    mounted = {text.split(":")[0] for text in COMPOSE["services"]["proxy"]["volumes"]}
    assert mounted == {"./deploy/nginx/nginx.conf", "./deploy/nginx/web-server.compose.conf"}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_probes_of_the_web_server_ask_its_health(overlay: str) -> None:
    web = app(pods(overlay)["web"])
    asked = {probe: web[f"{probe}Probe"]["httpGet"] for probe in ("startup", "readiness", "liveness")}
    assert {one["port"] for one in asked.values()} == {"web-server"}
    names = {probe: resolve(one["path"]).url_name for probe, one in asked.items()}
    assert names == {"startup": "live", "readiness": "ready", "liveness": "live"}
    assert "/health/ready" in str(OF_COMPOSE["web"]["healthcheck"]["test"])


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_manifests_name_documented_variables_only(overlay: str) -> None:
    for pod in pods(overlay, "Deployment", "Job", "CronJob").values():
        named = environment(overlay, pod).keys() - OF_KUBERNETES
        assert named - DOCUMENTED.keys() == set()
        assert app(pod)["envFrom"][1:] == [{"secretRef": {"name": "commerce"}}]


def secrets_of_the_example() -> dict[str, str]:
    text = (CHECKOUT / "deploy/kubernetes/secrets.env.example").read_text()
    return dict(re.findall("^([A-Z_]+)=(.*)$", text, re.MULTILINE))


def test_every_secret_is_in_the_example_and_no_setting_is() -> None:
    """`secrets.env.example` has exactly the variables of `.env.example` that are secrets or may contain a password."""
    secret = {name for name in DOCUMENTED if re.search("KEY$|PASSWORD$|TOKEN$|SASL_USERNAME$|_URL$", name)}
    public = {"SITE_URL", "THROTTLE_TOKEN", "DEVSERVER_KEY"}
    assert secrets_of_the_example().keys() == secret - public
    assert not any(secrets_of_the_example().values())
    for overlay in OVERLAYS:
        assert resources(overlay, "Secret") == {}
        assert resources(overlay, "ConfigMap")["settings"]["data"].keys() & secret <= public


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_settings_accept_what_the_manifests_give(overlay: str, tmp_path: Any) -> None:
    import certifi

    secrets = {name: SECRETS[name] for name in ("DJANGO_SECRET_KEY", "JWT_SIGNING_KEY")}
    secrets |= {"DATABASE_URL": "postgresql://commerce:secret@postgres:5432/commerce", "EMAIL_URL": "smtp://mail:25"}
    login = {"KAFKA_SASL_USERNAME": "commerce", "KAFKA_SASL_PASSWORD": "secret"}
    web = environment(overlay, pods(overlay)["web"])
    files = {"KAFKA_SSL_CAFILE": certifi.where()} if "KAFKA_SSL_CAFILE" in web else {}
    mail = {
        name: DOCUMENTED[name] or value for name, value in {"EMAIL_FROM": "a@b.example", "SITE_URL": "http://b"}.items()
    }
    given = mail | web | secrets | (login if files else {}) | files
    settings = settings_with({name: value for name, value in given.items() if name not in OF_KUBERNETES})
    assert settings["ALLOWED_HOSTS"] == repr([*web["HOSTS_OF_SITE"].split(","), "10.0.0.9"])
    assert settings["TRUSTED_PROXIES"] == {"trial": "1", "production": "2"}[overlay]
    assert settings["KAFKA_SECURITY_PROTOCOL"] == repr({"trial": "PLAINTEXT", "production": "SASL_SSL"}[overlay])


def test_the_file_of_the_authority_is_mounted_everywhere() -> None:
    for pod in pods("production", "Deployment", "Job", "CronJob").values():
        ours = [one for one in [*pod["spec"]["containers"], *pod["spec"].get("initContainers", [])] if "envFrom" in one]
        file = environment("production", pod)["KAFKA_SSL_CAFILE"]
        assert ours
        for container in ours:
            assert file.rpartition("/")[0] in {mount["mountPath"] for mount in container["volumeMounts"]}


def test_make_run_sets_documented_variables_only() -> None:
    source = (CHECKOUT / "commerce/devserver/run/surroundings.py").read_text()
    named = set(re.findall(r'"([A-Z]+_[A-Z_]+)"', source))
    assert {"KAFKA_BOOTSTRAP_SERVERS", "METRICS_TOKEN"} <= named
    assert named - DOCUMENTED.keys() == {"DJANGO_SETTINGS_MODULE"}
