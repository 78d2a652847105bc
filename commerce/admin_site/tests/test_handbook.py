"""Admin shows the Markdown files of docs/, with links that lead somewhere."""

import re
from pathlib import Path

import pytest
from django.contrib.auth.models import User
from django.test import Client

from commerce.admin_site import handbook

pytestmark = pytest.mark.django_db

DOCUMENTS = sorted(handbook._documents())


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_link_of_a_document_leads_to_a_page(document: str) -> None:
    html = handbook.render((handbook.DOCS / document).read_text(), document)
    places = re.findall(r'href="([^"#]*)(#[^"]*)?"', html)
    for file, fragment in places:
        if "://" in file:
            continue
        target = (handbook.DOCS / document).parent / file if file else handbook.DOCS / document
        assert target.resolve().is_relative_to(handbook.DOCS.resolve())
        if fragment:
            linked = handbook.render(target.read_text(), target.name)
            assert f'id="{fragment[1:]}"' in linked, fragment


def test_the_runbook_is_shown_with_its_sections(admin_client: Client) -> None:
    response = admin_client.get("/admin/docs/operations.md")
    assert response.context["title"] == "Handbook"
    text = response.content.decode()
    assert '<h2 id="lag-grows">Lag grows</h2>' in text
    assert "<table>" in text
    assert 'href="consumers.md"' in text
    assert admin_client.get("/admin/docs/consumers.md").status_code == 200


@pytest.mark.parametrize(
    "path", ["../README.md", "..%2FREADME.md", "none.md", "openapi.yaml", "decisions/", "/etc/passwd", "a%00b.md"]
)
def test_no_other_file_is_shown(admin_client: Client, path: str) -> None:
    assert admin_client.get(f"/admin/docs/{path}").status_code == 404


def test_the_handbook_is_for_staff(client: Client) -> None:
    client.force_login(User.objects.create_user("customer"))
    assert client.get("/admin/docs/operations.md").status_code == 302


@pytest.mark.parametrize(
    ("markdown", "html"),
    [
        ("[a](b.md)", "<p><a href=\"b.md\">a</a></p>"),
        ("[a](../b.md#c)", "<p><a href=\"../b.md#c\">a</a></p>"),
        ("[a](#c)", "<p><a href=\"#c\">a</a></p>"),
        ("[a](https://example.com/b)", "<p><a href=\"https://example.com/b\">a</a></p>"),
        ("[a](missing.md)", "<p>a</p>"),
        ("[`a`](../../b.md) c", "<p><code>a</code> c</p>"),
        ("<script>1</script>", "<p>&lt;script&gt;1&lt;/script&gt;</p>"),
        ("## Is `a` up?", "<h2 id=\"is-a-up\">Is <code>a</code> up?</h2>"),
    ],
)  # fmt: skip
def test_markdown_becomes_html(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, markdown: str, html: str) -> None:
    monkeypatch.setattr(handbook, "DOCS", tmp_path)
    (tmp_path / "b.md").touch()
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "b.md").touch()
    assert handbook.render(markdown, "in/x.md").strip() == html
