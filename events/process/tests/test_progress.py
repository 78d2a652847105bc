"""A command draws its progress on one line of a terminal. If its output is no terminal, it draws nothing."""

from io import StringIO

import pytest

from events.database import in_steps
from events.models import OutboxEvent
from events.process.progress import CLEAR_LINE, ProgressLine
from testkit.factories import OutboxEventFactory


class Terminal(StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_shows_one_line() -> None:
    terminal = Terminal()
    progress = ProgressLine(terminal)
    progress.of("orders")(0.421)
    assert terminal.getvalue().startswith(f"{CLEAR_LINE}orders [########............]  42%  0.")
    assert "\n" not in terminal.getvalue()
    progress.clear()
    assert terminal.getvalue().endswith(f" s{CLEAR_LINE}")


def test_a_line_is_not_drawn_for_every_step() -> None:
    terminal = Terminal()
    report = ProgressLine(terminal).of("orders")
    for step in range(1000):
        report(step / 1000)
    report(1.0)
    assert terminal.getvalue().count("orders") < 100
    assert "orders [####################] 100%" in terminal.getvalue()


def test_a_file_shows_nothing() -> None:
    file = StringIO()
    progress = ProgressLine(file)
    progress.of("orders")(1.0)
    progress.clear()
    assert file.getvalue() == ""


@pytest.mark.django_db
@pytest.mark.parametrize("rows", [0, 1, 5, 6])
def test_a_walk_reports_its_part_until_its_end(rows: int) -> None:
    for _ in range(rows):
        OutboxEventFactory.create()
    parts: list[float] = []
    for ids in in_steps(OutboxEvent.objects.all(), size=2, report=parts.append):
        # Each earlier step was reported after the loop had worked it off. The current step is not reported yet.
        assert len(parts) * 2 < rows
        assert ids
    assert parts == sorted(parts)
    assert parts[-1:] == ([1.0] if rows else [])
