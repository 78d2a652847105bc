from django.db import migrations

from commerce.accounts.names import fold

ACCOUNTS_AT_ONCE = 1_000


def keep_existing_names(apps, schema_editor):
    """Of accounts with one folded name the oldest has it; the others go on, and are marked."""
    using = schema_editor.connection.alias
    AccountName = apps.get_model("commerce", "AccountName")
    accounts = apps.get_model("auth", "User").objects.using(using).order_by("pk").values_list("pk", "username")
    last = 0
    while batch := list(accounts.filter(pk__gt=last)[:ACCOUNTS_AT_ONCE]):
        names = [AccountName(user_id=pk, folded=fold(name)) for pk, name in batch]
        AccountName.objects.using(using).bulk_create(names, ignore_conflicts=True)
        for name in names:
            name.collides = True
        AccountName.objects.using(using).bulk_create(names, ignore_conflicts=True)
        last = batch[-1][0]


class Migration(migrations.Migration):
    """A migration of its own, because the one before makes its unique index only when it ends."""

    dependencies = [
        ('commerce', '0003_account_name'),
    ]

    operations = [
        migrations.RunPython(keep_existing_names, migrations.RunPython.noop),
    ]
