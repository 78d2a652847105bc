from django.apps import apps as installed
from django.contrib.auth.management import create_permissions
from django.db import migrations

PERMISSIONS = {
    "support": ("view_emaildelivery",),
    "operator": ("view_emaildelivery", "send_again_emaildelivery"),
}


def add_permissions(apps, schema_editor):
    using = schema_editor.connection.alias
    # Django creates permissions only after the last migration.
    create_permissions(installed.get_app_config("notifications"), verbosity=0, using=using, apps=apps)
    Permission = apps.get_model("auth", "Permission")
    # An administrator may have renamed or deleted a group.
    for group in apps.get_model("auth", "Group").objects.using(using).filter(name__in=PERMISSIONS):
        group.permissions.add(
            *Permission.objects.using(using).filter(
                content_type__app_label="notifications", codename__in=PERMISSIONS[group.name]
            )
        )


class Migration(migrations.Migration):
    dependencies = [("commerce", "0006_help_texts"), ("notifications", "0005_email_admin")]

    # The reverse is a no-op, because an administrator may have changed the groups by then.
    operations = [migrations.RunPython(add_permissions, migrations.RunPython.noop)]
