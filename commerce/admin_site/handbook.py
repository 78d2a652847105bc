"""Shows the Markdown files of docs/ in admin, so that a problem on the pipeline page links to its runbook section."""

import posixpath
import re
from itertools import pairwise
from pathlib import Path

from django.conf import settings
from django.contrib import admin
from django.http import Http404, HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils.safestring import SafeString, mark_safe
from django.utils.translation import get_language, gettext
from markdown_it import MarkdownIt
from markdown_it.token import Token

DOCS: Path = settings.BASE_DIR / "docs"
FORBIDDEN_IN_ANCHORS = re.compile(r"[^\w\- ]")
EXPLICIT_ANCHOR = re.compile(r' <a id="([\w-]+)"></a>$')
"""Pattern of an HTML anchor at the end of a heading. Translated headings have the anchor of the original heading."""


def page(request: HttpRequest, document: str) -> HttpResponse:
    """Show the file with the path `document` below docs/, in the user's language if there is a translation.

    Raises Http404 if docs/ has no Markdown file with this path.
    """
    known = _documents()
    if document not in known:
        raise Http404
    translated = f"{get_language()}/{document}"
    file = translated if translated in known else document
    context = {
        **admin.site.each_context(request),
        "title": gettext("Handbook"),
        "text": render((DOCS / file).read_text(), file, shown_as=document),
        "language": next((code for code, _ in settings.LANGUAGES if file.startswith(f"{code}/")), "en"),
    }
    return TemplateResponse(request, "commerce/handbook.html", context)


def render(text: str, file: str, *, shown_as: str) -> SafeString:
    """Return the HTML of the Markdown `text`. Headings without an explicit anchor get the one that GitHub gives them.

    `file` is the path of its file, relative to docs/. `shown_as` is the path in the page's address; the two differ for
    a translation. A link to a file that admin does not show becomes plain text. HTML in the file is escaped.
    """
    markdown = MarkdownIt("commonmark", {"html": False}).enable("table")
    known = _documents()
    tokens = markdown.parse(text)
    for heading, content in pairwise(tokens):
        if heading.type == "heading_open":
            heading.attrSet("id", _take_anchor(content))
    for token in tokens:
        if token.children:
            token.children = _with_links(token.children, file, shown_as, known)
    return mark_safe(markdown.renderer.render(tokens, markdown.options, {}))  # noqa: S308 - HTML in it is escaped


def anchor(heading: str) -> str:
    """Return the anchor of a heading, as GitHub computes it."""
    return FORBIDDEN_IN_ANCHORS.sub("", heading.lower()).replace(" ", "-")


def _take_anchor(content: Token) -> str:
    """Return the anchor of the heading with this content: an explicit one such as `<a id="lag"></a>`, else GitHub's.

    Remove an explicit anchor from the text of the heading.
    """
    if not (explicit := EXPLICIT_ANCHOR.search(content.content)):
        return anchor(content.content)
    # The parser leaves it at the end of the last text, because HTML is off.
    last = (content.children or [])[-1]
    last.content = EXPLICIT_ANCHOR.sub("", last.content)
    return explicit[1]


def _documents() -> set[str]:
    """Return the paths of the files that admin shows, relative to docs/."""
    return {file.relative_to(DOCS).as_posix() for file in DOCS.rglob("*.md")}


def _with_links(tokens: list[Token], file: str, shown_as: str, known: set[str]) -> list[Token]:
    """Return `tokens` with links that work on the page with the path `shown_as`.

    A link to a file that admin does not show becomes plain text.
    """
    kept: list[Token] = []
    target: str | None = None
    for token in tokens:
        if token.type == "link_open":
            target = _target(str(token.attrGet("href")), file, shown_as, known)
            token.attrSet("href", target or "")
        if target is not None or token.type not in ("link_open", "link_close"):
            kept.append(token)
    return kept


def _target(href: str, file: str, shown_as: str, known: set[str]) -> str | None:
    """Return the address to which `href`, a link in `file`, must point on the page with the path `shown_as`.

    Return None if admin does not show the target. External links and anchors stay as they are.
    """
    path, mark, fragment = href.partition("#")
    if not path or "://" in path:
        return href
    path = posixpath.normpath(posixpath.join(posixpath.dirname(file), path))
    if path not in known:
        return None
    return posixpath.relpath(path, posixpath.dirname(shown_as) or ".") + mark + fragment
