"""Rules for new usernames, so that people cannot mistake one account for another.

They limit the characters of a name, and define when two names count as the same. Existing accounts keep their names.
"""

from typing import Any

import regex
from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.db import IntegrityError
from django.db.models import Exists, OuterRef
from django.db.models.signals import post_save, pre_save
from django.utils.translation import gettext_lazy as _

from commerce.models import AccountName

ACCOUNT_BATCH_SIZE = 1_000
NAME_TAKEN = _("A user with that name already exists.")

RECOMMENDED_SCRIPTS = (
    *("Arab", "Armn", "Beng", "Bopo", "Cyrl", "Deva", "Ethi", "Geor", "Grek", "Gujr", "Guru", "Hang", "Hani", "Hebr"),
    *("Hira", "Kana", "Khmr", "Knda", "Laoo", "Latn", "Mlym", "Mymr", "Orya", "Sinh", "Taml", "Telu", "Thaa", "Thai"),
    "Tibt",
)
"""Scripts that Unicode recommends for identifiers.

Source: https://www.unicode.org/reports/tr31/#Table_Recommended_Scripts
"""
MIXTURES = (("Latn", "Hani", "Hira", "Kana"), ("Latn", "Hani", "Bopo"), ("Latn", "Hani", "Hang"))
"""Sets of scripts that one name may mix, as Japanese, Chinese and Korean do.

Source: https://www.unicode.org/reports/tr39/#Restriction_Level_Detection, "highly restrictive"
"""


def _consisting_of(*scripts: str) -> str:
    """Return a pattern for text in `scripts`. It also matches characters of no single script, such as digits."""
    return "[" + "".join(rf"\p{{scx={script}}}" for script in (*scripts, "Zyyy", "Zinh")) + "]*+"


_ONE_SCRIPT = regex.compile(
    "|".join(_consisting_of(*scripts) for scripts in (*((script,) for script in RECOMMENDED_SCRIPTS), *MIXTURES))
)
_INVISIBLE = regex.compile(r"\p{Default_Ignorable_Code_Point}")


def fold(name: str) -> str:
    """Return the folded name. Names that differ only in case, width or invisible characters have the same folded name.

    Source: toNFKC_Casefold of https://www.unicode.org/versions/latest/core-spec/chapter-3/#G63737
    """
    visible = _INVISIBLE.sub("", User.normalize_username(name))
    return User.normalize_username(visible.casefold())


def validate_new_name(name: str, *, user_id: int = 0) -> None:
    """Raise ValidationError if the account `user_id` may not take `name`. 0 stands for a new account."""
    if _INVISIBLE.search(name):
        raise ValidationError(_("The name has an invisible character."), code="invisible")
    if not _ONE_SCRIPT.fullmatch(name):
        raise ValidationError(_("The name mixes letters of several scripts."), code="mixed")
    others = AccountName.objects.exclude(user=user_id)
    if others.filter(folded=fold(name)).exists() or User.objects.exclude(pk=user_id).filter(username=name).exists():
        raise ValidationError(NAME_TAKEN, code="unique")


def refuse_taken_name(*, instance: User, raw: bool, update_fields: frozenset[str] | None, **kwargs: Any) -> None:
    """Raise IntegrityError before Django saves an account with a taken name.

    Without this check, `save_folded_name` would raise the error after Django has saved the account. Outside a
    transaction, the account would then stay. `save_folded_name` still raises the error if another process takes the
    name after this check.
    """
    if raw or (update_fields is not None and "username" not in update_fields):
        return
    folded = fold(instance.username)
    saved = AccountName.objects.filter(user=instance.pk).first()
    is_new = instance._state.adding or (saved is not None and saved.folded != folded)
    if is_new and AccountName.objects.filter(folded=folded).exclude(user=instance.pk).exists():
        raise IntegrityError(f"{NAME_TAKEN} {instance.username}")


def save_folded_name(
    *, instance: User, created: bool, raw: bool, update_fields: frozenset[str] | None, **kwargs: Any
) -> None:
    """Save the folded name (see `fold`) of an account that was just saved, in the caller's transaction if there is one.

    Raise IntegrityError if another account has the same folded name. An account that an earlier release created without
    a folded name is marked as colliding in this case, and no error is raised.
    """
    if raw or (update_fields is not None and "username" not in update_fields):
        return
    folded = fold(instance.username)
    names = AccountName.objects.filter(user=instance)
    if created:
        AccountName.objects.create(user=instance, folded=folded)
    elif not names.exists():
        # An earlier release, which saves no folded names, created this account during a rollout.
        collides = AccountName.objects.filter(folded=folded).exists()
        AccountName.objects.create(user=instance, folded=folded, collides=collides)
    else:
        # A colliding account keeps its mark as long as its folded name stays the same.
        names.exclude(folded=folded).update(folded=folded, collides=False)


def save_missing_folded_names() -> None:
    """Save the folded name (see `fold`) of each account that has none, for the oldest account first.

    An earlier release creates such accounts in a rollout. An account whose folded name is already saved for another
    account is marked as colliding, and keeps working.
    """
    missing = User.objects.filter(~Exists(AccountName.objects.filter(user=OuterRef("pk")))).order_by("pk")
    while batch := list(missing.values_list("pk", "username")[:ACCOUNT_BATCH_SIZE]):
        for collides in (False, True):
            names = [AccountName(user_id=pk, folded=fold(name), collides=collides) for pk, name in batch]
            AccountName.objects.bulk_create(names, ignore_conflicts=True)


def connect() -> None:
    pre_save.connect(refuse_taken_name, sender=User, dispatch_uid="commerce.accounts.names.taken")
    post_save.connect(save_folded_name, sender=User, dispatch_uid="commerce.accounts.names")
