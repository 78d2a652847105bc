"""Accounts that cannot be deleted, because rows of other models refer to them and must stay."""

from functools import reduce
from operator import or_
from typing import Any

from django.contrib.auth.models import User
from django.db.models import PROTECT, RESTRICT, Exists, OuterRef, Q
from django.db.models.deletion import get_candidate_relations_to_delete

_options: Any = User._meta
PROTECTING: list[Any] = [
    one
    for one in get_candidate_relations_to_delete(_options)
    if one.on_delete in (PROTECT, RESTRICT)  # type: ignore[attr-defined]
]
"""Relations of other models to the user model. An account cannot be deleted while a row refers to it by one of them."""


def is_kept() -> Q:
    """Return the condition that selects the users who cannot be deleted."""
    found = (Exists(one.related_model.objects.filter(**{one.field.name: OuterRef("pk")})) for one in PROTECTING)
    return reduce(or_, map(Q, found), Q())


def kept_by(user_id: int) -> list[str]:
    """Return the names of the models whose rows keep this account, such as "orders".

    The list is empty if the account can be deleted.
    """
    return [
        str(one.related_model._meta.verbose_name_plural)
        for one in PROTECTING
        if one.related_model.objects.filter(**{one.field.name: user_id}).exists()
    ]
