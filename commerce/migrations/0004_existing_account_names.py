from django.db import migrations

from commerce.accounts.names import fold

ACCOUNT_BATCH_SIZE = 1_000


def save_existing_names(apps, schema_editor):
    """Save the folded names. Where several accounts share one, the oldest owns it. The others get `collides=True`."""
    using = schema_editor.connection.alias
    AccountName = apps.get_model("commerce", "AccountName")
    accounts = apps.get_model("auth", "User").objects.using(using).order_by("pk").values_list("pk", "username")
    last = 0
    while batch := list(accounts.filter(pk__gt=last)[:ACCOUNT_BATCH_SIZE]):
        names = [AccountName(user_id=pk, folded=fold(name)) for pk, name in batch]
        AccountName.objects.using(using).bulk_create(names, ignore_conflicts=True)
        for name in names:
            name.collides = True
        AccountName.objects.using(using).bulk_create(names, ignore_conflicts=True)
        last = batch[-1][0]


class Migration(migrations.Migration):
    """A separate migration, because the previous one creates its unique index only at its end."""

    dependencies = [
        ('commerce', '0003_account_name'),
    ]

    operations = [
        migrations.RunPython(save_existing_names, migrations.RunPython.noop),
    ]
