"""The overview of `make run` says where mails go."""

import pytest
from pytest_django import Settings

from commerce.devserver.overview import overview


@pytest.mark.parametrize(
    ("enabled", "folder", "said"),
    [
        (True, "var/mail", "var/mail/*.eml"),
        (True, None, "as EMAIL_URL says"),
        (False, None, "none, because EMAIL_URL is empty"),
    ],
)
def test_the_overview_says_where_mails_go(settings: Settings, enabled: bool, folder: str | None, said: str) -> None:
    settings.DEBUG = False
    settings.EMAIL_ENABLED, settings.EMAIL_FILE_PATH = enabled, folder
    (line,) = [line for line in overview(site="http://shop", servers={}, pids={}).splitlines() if "mails" in line]
    assert line.split(maxsplit=1) == ["mails", said]
