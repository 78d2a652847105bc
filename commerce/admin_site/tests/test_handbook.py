"""Admin shows the Markdown files of docs/, with links that lead somewhere."""

import re
from collections import Counter
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import pytest
from django.contrib.auth.models import User
from django.test import Client
from markdown_it import MarkdownIt
from markdown_it.token import Token

from commerce.admin_site import handbook
from commerce.operations.thresholds import ALERTS

pytestmark = pytest.mark.django_db

DOCUMENTS = sorted(handbook._documents())


def tokens_of(document: str) -> list[Token]:
    """Return the Markdown tokens of a file below docs/, parsed without the code under test."""
    return MarkdownIt("commonmark").enable("table").parse((handbook.DOCS / document).read_text())


def links_of(document: str) -> list[tuple[Path, str]]:
    """Return the target file and the fragment (the part after #) of every link that does not lead to another site."""
    inline = [child for token in tokens_of(document) for child in token.children or []]
    addresses = [str(child.attrGet("href")) for child in inline if child.type == "link_open"]
    split = [address.partition("#") for address in addresses if "://" not in address]
    folder = (handbook.DOCS / document).parent
    return [((folder / file if file else handbook.DOCS / document).resolve(), fragment) for file, _, fragment in split]


def anchors_of(document: str) -> list[str]:
    html = handbook.render((handbook.DOCS / document).read_text(), document, shown_as=document)
    return re.findall(r'<h\d id="([^"]*)">', html)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_link_of_a_document_leads_to_a_file_and_an_anchor(document: str) -> None:
    links = links_of(document)
    assert [str(file) for file, _ in links if not file.exists()] == []
    shown = [(file.relative_to(handbook.DOCS).as_posix(), fragment) for file, fragment in links if is_document(file)]
    assert [link for link in shown if link[1] and link[1] not in anchors_of(link[0])] == []


def is_document(file: Path) -> bool:
    return file.is_relative_to(handbook.DOCS) and file.suffix == ".md"


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_heading_has_an_anchor_of_its_own(document: str) -> None:
    anchors = anchors_of(document)
    assert anchors
    assert len(set(anchors)) == len(anchors)
    assert "" not in anchors


@pytest.mark.parametrize("language", ["en", "ko"])
@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_link_of_a_page_leads_to_a_page(admin_client: Client, document: str, language: str) -> None:
    """The test follows the links as a browser does, which knows only the page's address and not the rendered file."""
    address = f"/admin/docs/{document}"
    text = admin_client.get(address, headers={"accept-language": language}).content.decode()
    (article,) = re.findall(r"<article.*?</article>", text, re.DOTALL)
    paths = {
        urlsplit(urljoin(address, link)).path for link in re.findall(r'href="([^"]*)"', article) if "://" not in link
    }
    assert [path for path in paths if admin_client.get(path).status_code != 200] == []


# --- The translations -------------------------------------------------------------------------------

TRANSLATIONS = [document for document in DOCUMENTS if document.startswith("ko/")]


def original_of(translation: str) -> str:
    return translation.partition("/")[2]


def parts_of(document: str) -> dict[str, tuple[list[str], list[str], set[str]]]:
    """Return the parts of each section that a translation keeps: block types, commands and inline code.

    The keys are the anchors of the sections.
    """
    sections: dict[str, tuple[list[str], list[str], set[str]]] = {}
    anchors = iter(anchors_of(document))
    for token in tokens_of(document):
        if token.type == "heading_open":
            sections[next(anchors)] = blocks, commands, code = [], [], set()
        blocks.append(token.type)
        if token.type == "fence":
            commands.append(token.content)
        code |= {child.content for child in token.children or [] if child.type == "code_inline"}
    return sections


@pytest.mark.parametrize("translation", TRANSLATIONS)
def test_a_translation_has_the_parts_of_the_original(translation: str) -> None:
    original, translated = parts_of(original_of(translation)), parts_of(translation)
    assert list(translated) == list(original)
    for anchor, parts in original.items():
        assert translated[anchor] == parts, anchor


@pytest.mark.parametrize("translation", TRANSLATIONS)
def test_a_translation_has_the_links_of_the_original(translation: str) -> None:
    original = original_of(translation)
    files = [(handbook.DOCS / document).resolve() for document in (translation, original)]
    links = [("itself" if file in files else file, fragment) for file, fragment in links_of(translation)]
    assert Counter(links) == Counter(
        ("itself" if file in files else file, fragment) for file, fragment in links_of(original)
    )


def test_the_runbook_is_korean_for_readers_of_korean(admin_client: Client) -> None:
    for language, heading in (("ko", "지연이 커질 때"), ("en", "Lag grows")):
        text = admin_client.get("/admin/docs/operations.md", headers={"accept-language": language}).content.decode()
        assert f'<h2 id="lag-grows">{heading}</h2>' in text
        assert f'<article class="handbook" lang="{language}">' in text
        assert 'href="consumers.md"' in text
    text = admin_client.get("/admin/docs/consumers.md", headers={"accept-language": "ko"}).content.decode()
    assert '<article class="handbook" lang="en" translate="no">' in text


def test_every_section_that_an_alert_names_is_in_korean() -> None:
    assert {alert.section for alert in ALERTS} <= set(anchors_of("ko/operations.md"))


# --- Pages ------------------------------------------------------------------------------------------


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
        ('## Is <a id="b"></a>', '<h2 id="b">Is</h2>'),
        ('## `a` is <a id="b-c"></a>', '<h2 id="b-c"><code>a</code> is</h2>'),
        ('## Is <a id="b"></a>?', '<h2 id="is-a-idba">Is &lt;a id=&quot;b&quot;&gt;&lt;/a&gt;?</h2>'),
        ("## Is `a` up?", "<h2 id=\"is-a-up\">Is <code>a</code> up?</h2>"),
    ],
)  # fmt: skip
def test_markdown_becomes_html(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, markdown: str, html: str) -> None:
    monkeypatch.setattr(handbook, "DOCS", tmp_path)
    (tmp_path / "b.md").touch()
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "b.md").touch()
    assert handbook.render(markdown, "in/x.md", shown_as="in/x.md").strip() == html


@pytest.mark.parametrize(
    ("link", "shown"),
    [
        ("../b.md#c", "b.md#c"),
        ("#c", "#c"),
        ("../in/b.md", "in/b.md"),
        ("b.md", None),
        ("https://example.com/b", "https://example.com/b"),
    ],
)
def test_a_translation_links_to_what_its_original_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, link: str, shown: str | None
) -> None:
    monkeypatch.setattr(handbook, "DOCS", tmp_path)
    (tmp_path / "b.md").touch()
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "b.md").touch()
    html = handbook.render(f"[a]({link})", "ko/x.md", shown_as="x.md").strip()
    assert html == (f'<p><a href="{shown}">a</a></p>' if shown else "<p>a</p>")
