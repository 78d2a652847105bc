"""The three ways to run the product: docker compose, Kubernetes and `make run`, each as a list of processes."""

import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from django.core.management import get_commands, load_command_class

from commerce.devserver.run.processes import processes
from fulfilment.management.commands.run_fulfilment import KINDS
from notifications.work import EMAIL
from testkit.processes import CHECKOUT

COMPOSE = yaml.safe_load((CHECKOUT / "docker-compose.yml").read_text())
OF_COMPOSE = {
    name: service
    for name, service in COMPOSE["services"].items()
    if service["image"] == "commerce" and name != "provider"
}
"""The product's own services in compose, by name. The development provider, which has the same image, is left out."""
OVERLAYS = ("trial", "production")
WAYS = ("compose", *OVERLAYS, "make run")
WEB_SERVER = "commerce.web_server"


class Process(NamedTuple):
    name: str
    words: tuple[str, ...]
    """The command without `python`."""

    @property
    def command(self) -> str:
        """The management command, or the module that `-m` names."""
        return self.words[1]

    @property
    def options(self) -> dict[str, Any]:
        """The options as the management command parses them.

        Raises KeyError if there is no such command, and CommandError if it refuses an option.
        """
        parser = load_command_class(get_commands()[self.command], self.command).create_parser("manage.py", self.command)
        return vars(parser.parse_args(list(self.words[2:])))

    @property
    def work(self) -> set[str]:
        """Names of the work that the process does: `group NAME`, `work KIND`, or its command."""
        if self.command == "consume":
            return {f"group {group}" for group in self.options["groups"]}
        if self.command == "consume_order_events":
            return {f"group {self.options['group']}"}
        if self.command == "work":
            return {f"work {kind}" for kind in self.options["kinds"]}
        if self.command == "send_emails":
            return {f"work {EMAIL.name}"}
        if self.command == "run_fulfilment":
            return {f"work {kind}" for kind in KINDS}
        return {self.command}


@cache
def rendered(overlay: str) -> list[dict[str, Any]]:
    """Return all resources of an overlay, as kubectl would apply them."""
    kubectl = Path(sys.executable).parent / "kubectl"
    folder = CHECKOUT / "deploy/kubernetes/overlays" / overlay
    text = subprocess.run([kubectl, "kustomize", folder], capture_output=True, text=True, check=True).stdout
    return list(yaml.safe_load_all(text))


def resources(overlay: str, kind: str) -> dict[str, dict[str, Any]]:
    """Return the resources of a kind by name. The keys of ConfigMaps are their names without the hash."""
    return {
        re.sub("-[a-z0-9]{10}$", "", one["metadata"]["name"]) if kind == "ConfigMap" else one["metadata"]["name"]: one
        for one in rendered(overlay)
        if one["kind"] == kind
    }


def pods(overlay: str, *kinds: str) -> dict[str, dict[str, Any]]:
    """Return the pod template of each Deployment, Job, CronJob and StatefulSet, or of the given kinds, by name."""
    found = {}
    for kind in kinds or ("Deployment", "Job", "CronJob", "StatefulSet"):
        for name, one in resources(overlay, kind).items():
            spec = one["spec"]["jobTemplate"]["spec"] if kind == "CronJob" else one["spec"]
            found[name] = spec["template"]
    return found


def app(pod: dict[str, Any]) -> dict[str, Any]:
    """Return the pod's container that runs the product."""
    (container,) = (one for one in pod["spec"]["containers"] if one["name"] == "app")
    return container


def _commands(way: str) -> Iterator[tuple[str, list[str]]]:
    if way == "compose":
        (of_image,) = re.findall(r"^CMD (\[.+\])$", (CHECKOUT / "deploy/Dockerfile").read_text(), re.MULTILINE)
        for name, service in OF_COMPOSE.items():
            yield name, service.get("command", yaml.safe_load(of_image))
    elif way == "make run":
        for name, words in processes(bind="127.0.0.1:8080", needs_provider=False).items():
            yield name, ["python", *words]
    else:
        for name, pod in pods(way, "Deployment").items():
            yield name, app(pod)["command"]


def running(way: str) -> list[Process]:
    """Return the processes that run until a signal ends them. `way` is one of `WAYS`."""
    return [Process(name, tuple(words[1:])) for name, words in _commands(way) if words[0] == "python"]
