"""Admin is in Korean or English, the API in English."""

import re
from pathlib import Path
from types import ModuleType

import axes
import django
import pytest
import unfold
from babel.messages.pofile import read_po
from django.apps import apps
from django.conf import settings
from django.contrib import admin
from django.contrib.admin.utils import flatten
from django.test import Client, RequestFactory
from django.utils import translation

from commerce.admin_site import names

pytestmark = pytest.mark.django_db

PACKAGE_TEXTS: Path = settings.BASE_DIR / "commerce" / "package_locale" / "ko" / "LC_MESSAGES"


def test_admin_speaks_korean_and_english(admin_client: Client) -> None:
    korean = admin_client.get("/admin/pipeline/", headers={"accept-language": "ko"}).content.decode()
    assert 'lang="ko"' in korean
    assert "이벤트 파이프라인" in korean
    english = admin_client.get("/admin/pipeline/", headers={"accept-language": "en"}).content.decode()
    assert "Event pipeline" in english


def test_a_chosen_language_is_remembered(admin_client: Client) -> None:
    admin_client.post("/admin/i18n/setlang/", {"language": "ko", "next": "/admin/"})
    assert "주문" in admin_client.get("/admin/").content.decode()


def test_the_api_stays_english_after_korean_admin_pages(admin_client: Client) -> None:
    korean = {"accept-language": "ko"}
    admin_client.get("/admin/", headers=korean)
    assert "credentials" in admin_client.get("/api/orders", headers=korean).json()["detail"]


@pytest.mark.parametrize("label", names.TRANSLATED_APPS)
def test_every_name_that_admin_shows_is_korean(label: str) -> None:
    app = apps.get_app_config(label)
    with translation.override("ko"):
        assert not app.verbose_name.isascii()
        for model in app.get_models():
            if admin.site.is_registered(model):
                shown = {"verbose name": model._meta.verbose_name, "plural": model._meta.verbose_name_plural}
                shown |= {field.name: field.verbose_name for field in model._meta.local_fields}
                english = [name for name, text in shown.items() if str(text).isascii()]
                assert [name for name in english if name not in ("id", "value_hash")] == []


@pytest.mark.parametrize("label", names.TRANSLATED_APPS)
def test_every_help_text_that_admin_shows_is_korean(label: str) -> None:
    request = RequestFactory().get("/admin/")
    with translation.override("ko"):
        for model in apps.get_app_config(label).get_models():
            if (page := admin.site._registry.get(model)) is None:
                continue
            shown = flatten(page.get_fields(request))
            texts = [field.help_text for field in model._meta.local_fields if field.name in shown and field.help_text]
            assert [text for text in texts if str(text).isascii()] == []


@pytest.mark.parametrize("label", names.TRANSLATED_APPS)
def test_help_texts_are_sentences(label: str) -> None:
    """A sentence has several words, begins with a capital letter and ends with a full stop."""
    fields = [field for model in apps.get_app_config(label).get_models() for field in model._meta.local_fields]
    texts = [str(field.help_text) for field in fields if field.help_text]
    assert texts
    assert [text for text in texts if not re.fullmatch(r"[A-Z]\S* \S+ .+\.", text)] == []


@pytest.mark.parametrize("file", sorted(PACKAGE_TEXTS.glob("*.po")), ids=lambda file: file.stem)
def test_every_translated_text_is_one_of_the_packages(file: Path) -> None:
    """If a new version of a package changes a text, the text loses its translation. This test reports that."""
    sources = "".join(_source(package, suffix) for package in (django, unfold, axes) for suffix in ("py", "html", "js"))
    with file.open("rb") as stream:
        texts = [message.id for message in read_po(stream, locale="ko") if message.id]
    singular = [text if isinstance(text, str) else text[0] for text in texts]
    assert [text for text in singular if _plain(text) not in sources] == []


def _source(package: ModuleType, suffix: str) -> str:
    files = Path(str(package.__file__)).parent.rglob(f"*.{suffix}")
    return "".join(_plain(file.read_text()) for file in files if "locale" not in file.parts)


def _plain(text: str) -> str:
    """Return the text without placeholders, spaces and punctuation, which templates and Python write differently."""
    return re.sub(r"%\(\w+\)s|{{ ?\w+ ?}}|[\W_]", "", text)
