"""The OpenAPI document and its page."""

import json
import os
import re
import subprocess
import sys
from typing import Any

import pytest
from django.contrib.staticfiles import finders
from drf_spectacular.generators import SchemaGenerator
from pytest_django import Settings
from rest_framework.test import APIClient

from commerce.accounts import demo_accounts
from testkit.processes import CHECKOUT

CONTRACT = {
    "/": {"get"},
    "/api/auth/register": {"post"},
    "/api/auth/token": {"post"},
    "/api/auth/token/refresh": {"post"},
    "/api/orders": {"get", "post"},
    "/api/orders/{id}": {"get"},
    "/api/orders/{id}/pay": {"post"},
    "/api/orders/{id}/cancel": {"post"},
    "/api/orders/{id}/checkout": {"post"},
    "/api/orders/{id}/fulfilment": {"get"},
    "/api/orders/{id}/events": {"get"},
    "/api/notifications": {"get"},
    "/api/notifications/{id}/read": {"post"},
    "/api/me": {"get", "patch"},
    "/api/me/summary": {"get"},
    "/api/sales": {"get"},
    "/api/schema": {"get"},
    "/api/docs": {"get"},
    "/api/asyncapi": {"get"},
    "/health/live": {"get"},
    "/health/ready": {"get"},
    "/metrics": {"get"},
}


ASK_AT_ONCE = """
from concurrent.futures import ThreadPoolExecutor
import django
django.setup()
from django.test import Client
with ThreadPoolExecutor(8) as pool:
    print({answer.status_code for answer in pool.map(lambda _: Client().get("/api/schema"), range(8))})
"""


def test_the_first_requests_for_the_document_may_come_at_once() -> None:
    environment = os.environ | {"DJANGO_SETTINGS_MODULE": "commerce.settings"}
    asked = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", ASK_AT_ONCE],
        cwd=CHECKOUT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert asked.stdout == "{200}\n", asked.stderr


def test_the_public_openapi_document_has_every_path(anonymous: APIClient) -> None:
    response = anonymous.get("/api/schema")
    assert response.status_code == 200
    assert response["Content-Type"] == "application/vnd.oai.openapi+json"
    document = response.json()
    assert document["openapi"].startswith("3.")
    assert {path: set(methods) for path, methods in document["paths"].items()} == CONTRACT


def first_steps(document: dict[str, Any]) -> str:
    """Return the first section of the document's description."""
    begin, section, *_ = re.split("^## ", document["info"]["description"], flags=re.MULTILINE)
    assert begin == ""
    assert section.startswith("First steps")
    return section


def credentials(section: str) -> dict[str, str]:
    """Return the JSON body of the curl command in `section` that requests tokens.

    `section` is the text of a section in the description of the OpenAPI document.
    """
    (body,) = re.findall(r"^curl \S+/api/auth/token .*\\\n +-d '(.+)'$", section, re.MULTILINE)
    return json.loads(body)


@pytest.mark.django_db
def test_the_first_steps_log_in_as_demo_in_development(anonymous: APIClient, settings: Settings) -> None:
    settings.DEBUG = True
    section = first_steps(SchemaGenerator().get_schema(public=True))
    assert "**Authorize**" in section
    demo_accounts.create()
    tokens = anonymous.post("/api/auth/token", credentials(section), format="json").json()
    anonymous.credentials(HTTP_AUTHORIZATION=f"Bearer {tokens['access']}")
    assert anonymous.get("/api/orders").status_code == 200


@pytest.mark.django_db
def test_the_first_steps_register_an_account_in_production(anonymous: APIClient, settings: Settings) -> None:
    settings.DEBUG = False
    document = SchemaGenerator().get_schema(public=True)
    text = json.dumps(document, default=str)
    assert not any(account.password in text for account in demo_accounts.ACCOUNTS)
    section = first_steps(document)
    assert "POST /api/auth/register" in section
    for path, status in (("register", 201), ("token", 200)):
        assert anonymous.post(f"/api/auth/{path}", credentials(section), format="json").status_code == status


def test_the_first_steps_have_the_address_of_the_request(anonymous: APIClient, settings: Settings) -> None:
    settings.ALLOWED_HOSTS = ["shop.example"]
    for host in ("shop.example", "shop.example:8443"):
        section = first_steps(anonymous.get("/api/schema", headers={"host": host}).json())
        assert set(re.findall(r"https?://[^/ ]+", section)) == {f"http://{host}"}


def test_every_security_scheme_is_explained(anonymous: APIClient) -> None:
    schemes = anonymous.get("/api/schema").json()["components"]["securitySchemes"]
    assert set(schemes) == {"jwtAuth", "metricsToken"}
    assert "`POST /api/auth/token`" in schemes["jwtAuth"]["description"]
    assert "`METRICS_TOKEN`" in schemes["metricsToken"]["description"]


def test_every_operation_names_its_refusals_as_problems(anonymous: APIClient) -> None:
    paths = anonymous.get("/api/schema").json()["paths"]
    for path, methods in paths.items():
        for operation in methods.values():
            for status, answer in operation["responses"].items():
                if status >= "400" and (path, status) != ("/health/ready", "503"):
                    schema = answer["content"]["application/problem+json"]["schema"]
                    assert schema == {"$ref": "#/components/schemas/Problem"}
    placing = paths["/api/orders"]["post"]
    assert set(placing["responses"]) == {"201", "400", "401", "409", "413", "415", "422", "429", "500"}
    assert set(placing["responses"]["201"]["headers"]) == {"Location", "Idempotent-Replayed", "X-Request-ID"}
    assert set(paths["/api/docs"]["get"]["responses"]) == {"200", "500"}


def test_every_answer_has_the_name_of_its_request(anonymous: APIClient) -> None:
    for methods in anonymous.get("/api/schema").json()["paths"].values():
        for operation in methods.values():
            assert all("X-Request-ID" in answer["headers"] for answer in operation["responses"].values())


def test_a_filter_has_the_type_of_what_it_filters(anonymous: APIClient) -> None:
    paths = anonymous.get("/api/schema").json()["paths"]
    for path, name, schema in (("orders", "status", "OrderStatus"), ("notifications", "type", "OrderEventType")):
        (parameter,) = (one for one in paths[f"/api/{path}"]["get"]["parameters"] if one["name"] == name)
        assert parameter["schema"] == {"$ref": f"#/components/schemas/{schema}"}


def test_the_page_loads_its_assets_from_this_site(anonymous: APIClient) -> None:
    response = anonymous.get("/api/docs")
    assert response.status_code == 200
    page = response.content.decode()
    addresses = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert len(addresses) >= 3
    for address in addresses:
        assert address.startswith("/static/")
        assert finders.find(address.removeprefix("/static/")), address
    assert "/api/schema" in page
    assert "http://" not in page
    assert "https://" not in page


@pytest.mark.parametrize("path", ["/api/schema", "/api/docs", "/api/asyncapi"])
def test_documents_are_read_only(anonymous: APIClient, path: str) -> None:
    response = anonymous.post(path)
    assert response.status_code == 405
    assert response["Content-Type"] == "application/problem+json"
    assert response.json()["status"] == 405
