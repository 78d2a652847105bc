"""Names that a person cannot mistake for another's: what a new one may consist of, and when two are the same.

Existing accounts keep their names, whatever these rules say of them.
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

ACCOUNTS_AT_ONCE = 1_000
NAME_TAKEN = _("A user with that name already exists.")

RECOMMENDED_SCRIPTS = (
    *("Arab", "Armn", "Beng", "Bopo", "Cyrl", "Deva", "Ethi", "Geor", "Grek", "Gujr", "Guru", "Hang", "Hani", "Hebr"),
    *("Hira", "Kana", "Khmr", "Knda", "Laoo", "Latn", "Mlym", "Mymr", "Orya", "Sinh", "Taml", "Telu", "Thaa", "Thai"),
    "Tibt",
)
"""Source: https://www.unicode.org/reports/tr31/#Table_Recommended_Scripts"""
MIXTURES = (("Latn", "Hani", "Hira", "Kana"), ("Latn", "Hani", "Bopo"), ("Latn", "Hani", "Hang"))
"""Scripts that one name may mix, as Japanese, Chinese and Korean do.

Source: https://www.unicode.org/reports/tr39/#Restriction_Level_Detection, "highly restrictive"
"""


def _consisting_of(*scripts: str) -> str:
    """Digits and signs belong to every script."""
    return "[" + "".join(rf"\p{{scx={script}}}" for script in (*scripts, "Zyyy", "Zinh")) + "]*+"


_ONE_SCRIPT = regex.compile(
    "|".join(_consisting_of(*scripts) for scripts in (*((script,) for script in RECOMMENDED_SCRIPTS), *MIXTURES))
)
_INVISIBLE = regex.compile(r"\p{Default_Ignorable_Code_Point}")


def fold(name: str) -> str:
    """Return what two names have in common that differ in case, width or invisible characters alone.

    Source: toNFKC_Casefold of https://www.unicode.org/versions/latest/core-spec/chapter-3/#G63737
    """
    visible = _INVISIBLE.sub("", User.normalize_username(name))
    return User.normalize_username(visible.casefold())


def validate_new_name(name: str, *, user_id: int = 0) -> None:
    """Raise ValidationError where the account `user_id`, 0 for a new one, may not take `name`."""
    if _INVISIBLE.search(name):
        raise ValidationError(_("The name has an invisible character."), code="invisible")
    if not _ONE_SCRIPT.fullmatch(name):
        raise ValidationError(_("The name mixes letters of several scripts."), code="mixed")
    others = AccountName.objects.exclude(user=user_id)
    if others.filter(folded=fold(name)).exists() or User.objects.exclude(pk=user_id).filter(username=name).exists():
        raise ValidationError(NAME_TAKEN, code="unique")


def refuse_taken_name(*, instance: User, raw: bool, update_fields: frozenset[str] | None, **kwargs: Any) -> None:
    """Refuse a new name that is taken before the account is saved, also outside of a transaction.

    Raises IntegrityError, as the unique index does for a name that another process takes meanwhile.
    """
    if raw or (update_fields is not None and "username" not in update_fields):
        return
    folded = fold(instance.username)
    kept = AccountName.objects.filter(user=instance.pk).first()
    is_new = instance._state.adding or (kept is not None and kept.folded != folded)
    if is_new and AccountName.objects.filter(folded=folded).exclude(user=instance.pk).exists():
        raise IntegrityError(f"{NAME_TAKEN} {instance.username}")


def keep_name(*, instance: User, created: bool, raw: bool, update_fields: frozenset[str] | None, **kwargs: Any) -> None:
    """Let the database refuse a name that is taken, in the transaction that saves it. Raises IntegrityError."""
    if raw or (update_fields is not None and "username" not in update_fields):
        return
    folded = fold(instance.username)
    names = AccountName.objects.filter(user=instance)
    if created:
        AccountName.objects.create(user=instance, folded=folded)
    elif not names.exists():
        # An account of a release that kept no names, made beside this one.
        collides = AccountName.objects.filter(folded=folded).exists()
        AccountName.objects.create(user=instance, folded=folded, collides=collides)
    else:
        # One that collides goes on as long as it stays what it is.
        names.exclude(folded=folded).update(folded=folded, collides=False)


def keep_missing_names() -> None:
    """Keep the names of accounts that an older release, which keeps none, has made beside this one.

    Of accounts with one folded name the oldest has it; the others go on, and are marked.
    """
    missing = User.objects.filter(~Exists(AccountName.objects.filter(user=OuterRef("pk")))).order_by("pk")
    while batch := list(missing.values_list("pk", "username")[:ACCOUNTS_AT_ONCE]):
        for collides in (False, True):
            names = [AccountName(user_id=pk, folded=fold(name), collides=collides) for pk, name in batch]
            AccountName.objects.bulk_create(names, ignore_conflicts=True)


def connect() -> None:
    pre_save.connect(refuse_taken_name, sender=User, dispatch_uid="commerce.accounts.names.taken")
    post_save.connect(keep_name, sender=User, dispatch_uid="commerce.accounts.names")
