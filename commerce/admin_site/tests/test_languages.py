"""Admin is in Korean or English, the API in English."""

import re

import pytest
from django.apps import apps
from django.contrib import admin
from django.contrib.admin.utils import flatten
from django.test import Client, RequestFactory
from django.utils import translation

from commerce.admin_site import names

pytestmark = pytest.mark.django_db


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


@pytest.mark.parametrize("label", ["commerce", *names.TRANSLATED_APPS])
def test_help_texts_are_sentences(label: str) -> None:
    """A sentence begins with a capital letter, ends with a full stop, and has a verb of its own."""
    fields = [field for model in apps.get_app_config(label).get_models() for field in model._meta.local_fields]
    texts = [str(field.help_text) for field in fields if field.help_text]
    assert texts
    verbs = r"\b(is|are|was|ends|has|have|had|names|carries|counts|defines|concerns|reports|killed|turned|leave)\b"
    assert [text for text in texts if not re.fullmatch(r"[A-Z].+\.", text) or not re.search(verbs, text, re.I)] == []
