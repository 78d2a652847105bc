"""Admin of the commands that a participant, such as payments, has received, with their states and replies."""

from collections.abc import Callable, Collection
from datetime import timedelta
from typing import Any

import msgspec
from django.contrib import admin
from django.db import models
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy, ngettext_lazy

from events.admin.actions import RowAction
from events.admin.leased_work import LeasedWorkAdmin, refuse_unless_failed, try_again
from events.admin.read_only import untranslated
from events.wire.identifiers import id_or_none, uuid_or_none
from events.wire.secret_members import masked
from events.work.commands import CommandWork

MEMBERS_OF_EVERY_COMMAND = ("eventId", "eventType", "timestamp", "commandId", "reference")


def try_again_action(model: type[CommandWork], *, within: Callable[[], timedelta]) -> RowAction:
    """Return the row action that makes failed commands pending again.

    `within` returns how long workers may try a command from then on.
    """
    return RowAction(
        name="try_again",
        label=gettext_lazy("Try again"),
        label_in_list=gettext_lazy("Try selected commands again"),
        question=ngettext_lazy(
            "Try this command again? Its sender has the reply that it failed, and gets another reply.",
            "Try these %(count)d commands again? Their senders have replies that they failed, and get other replies.",
            "count",
        ),
        possible=ngettext_lazy("%(count)d can be tried again", "%(count)d can be tried again", "count"),
        done=ngettext_lazy(
            "%(count)d command will be tried again.", "%(count)d commands will be tried again.", "count"
        ),
        refuse=refuse_unless_failed,
        do=try_again(model, within=within, log_text="Try again."),
    )


class CommandAdmin(LeasedWorkAdmin):
    """Base class for the admin of a participant's commands. A subclass sets `row_actions` to its `try_again_action`."""

    secret_members: Collection[str] = ()
    """Names of the members of a command whose values the command's page hides."""

    list_display = ("command", "reference", *LeasedWorkAdmin.WORK_COLUMNS, "reply")
    search_fields = ("=reference", "=command_id")
    search_help_text = gettext_lazy("A reference or a command's id")
    readonly_fields = (*LeasedWorkAdmin.readonly_fields, "command", "members", "reply", "reason_text")
    fields = (
        *LeasedWorkAdmin.WORK_FIELDS,
        ("command", "reference"),
        "command_id",
        "members",
        ("reply", "reason_text"),
    )

    def find(self, rows: models.QuerySet[Any], term: str) -> models.QuerySet[Any]:
        if command_id := uuid_or_none(term):
            return rows.filter(command_id=command_id)
        number = id_or_none(term)
        return rows.none() if number is None else rows.filter(reference=number)

    def for_refusals(self, rows: models.QuerySet[Any]) -> models.QuerySet[Any]:
        return rows.only("state")

    def describe(self, row: CommandWork) -> list[Any]:
        return [untranslated(row.command_type), row.reference, row.get_state_display()]

    @admin.display(description=gettext_lazy("command type"))
    def command(self, work: CommandWork) -> SafeString:
        return untranslated(work.command_type)

    @admin.display(description=gettext_lazy("reply type"))
    def reply(self, work: CommandWork) -> SafeString:
        return untranslated(work.reply_type)

    @admin.display(description=gettext_lazy("members"))
    def members(self, work: CommandWork) -> SafeString:
        """Return as JSON the members that not every command has, such as an amount."""
        shown = masked(bytes(work.value), self.secret_members)
        members: dict[str, Any] = msgspec.json.decode(shown, type=dict[str, msgspec.Raw])
        own = {name: raw for name, raw in members.items() if name not in MEMBERS_OF_EVERY_COMMAND}
        return untranslated(msgspec.json.encode(own).decode())

    @admin.display(description=gettext_lazy("reason"))
    def reason_text(self, work: CommandWork) -> SafeString:
        return untranslated(work.reason)
