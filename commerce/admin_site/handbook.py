"""Shows the Markdown files of docs/ in admin, so that a finding on the pipeline page leads to its runbook section."""

import posixpath
import re
from itertools import pairwise
from pathlib import Path

from django.conf import settings
from django.contrib import admin
from django.http import Http404, HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils.safestring import SafeString, mark_safe
from django.utils.translation import gettext
from markdown_it import MarkdownIt
from markdown_it.token import Token

DOCS: Path = settings.BASE_DIR / "docs"
FORBIDDEN_IN_ANCHORS = re.compile(r"[^\w\- ]")


def page(request: HttpRequest, document: str) -> HttpResponse:
    """Show the file `document`, a path below docs/. Raises Http404 for any other file."""
    if document not in _documents():
        raise Http404
    text = (DOCS / document).read_text()
    context = {**admin.site.each_context(request), "title": gettext("Handbook"), "text": render(text, document)}
    return TemplateResponse(request, "commerce/handbook.html", context)


def render(text: str, document: str) -> SafeString:
    """Return the HTML of a file. Its headings have the anchors that GitHub gives them.

    A link to a file that admin does not show becomes plain text. HTML in the file is escaped.
    """
    markdown = MarkdownIt("commonmark", {"html": False}).enable("table")
    known = _documents()
    tokens = markdown.parse(text)
    for heading, content in pairwise(tokens):
        if heading.type == "heading_open":
            heading.attrSet("id", anchor(content.content))
    for token in tokens:
        if token.children:
            token.children = _without_dead_links(token.children, document, known)
    return mark_safe(markdown.renderer.render(tokens, markdown.options, {}))  # noqa: S308 - HTML in it is escaped


def anchor(heading: str) -> str:
    """Return the anchor of a heading, as GitHub computes it."""
    return FORBIDDEN_IN_ANCHORS.sub("", heading.lower()).replace(" ", "-")


def _documents() -> set[str]:
    """Return the paths of the files that admin shows, relative to docs/."""
    return {file.relative_to(DOCS).as_posix() for file in DOCS.rglob("*.md")}


def _without_dead_links(tokens: list[Token], document: str, known: set[str]) -> list[Token]:
    kept: list[Token] = []
    is_dead = False
    for token in tokens:
        if token.type == "link_open":
            is_dead = not _leads_somewhere(str(token.attrGet("href")), document, known)
        if not (is_dead and token.type in ("link_open", "link_close")):
            kept.append(token)
    return kept


def _leads_somewhere(href: str, document: str, known: set[str]) -> bool:
    file = href.partition("#")[0]
    if not file or "://" in file:
        return True
    return posixpath.normpath(posixpath.join(posixpath.dirname(document), file)) in known
