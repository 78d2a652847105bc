from django.apps import apps as installed
from django.contrib.auth.management import create_permissions
from django.db import migrations

PERMISSIONS = {
    "support": ("view_fulfilment",),
    "operator": ("view_fulfilment", "retry_fulfilment", "undo_fulfilment", "resolve_fulfilment"),
}


def add_permissions(apps, schema_editor):
    using = schema_editor.connection.alias
    # Django creates permissions only after the last migration.
    create_permissions(installed.get_app_config("fulfilment"), verbosity=0, using=using, apps=apps)
    Permission = apps.get_model("auth", "Permission")
    # An administrator may have renamed or deleted a group.
    for group in apps.get_model("auth", "Group").objects.using(using).filter(name__in=PERMISSIONS):
        group.permissions.add(
            *Permission.objects.using(using).filter(
                content_type__app_label="fulfilment", codename__in=PERMISSIONS[group.name]
            )
        )


class Migration(migrations.Migration):
    dependencies = [("commerce", "0010_groups_of_commands"), ("fulfilment", "0001_initial")]

    # The reverse is a no-op, because an administrator may have changed the groups by then.
    operations = [migrations.RunPython(add_permissions, migrations.RunPython.noop)]
