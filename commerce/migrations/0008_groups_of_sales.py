from django.apps import apps as installed
from django.contrib.auth.management import create_permissions
from django.db import migrations

GROUPS = ("support", "operator")


def add_permission(apps, schema_editor):
    using = schema_editor.connection.alias
    # Django creates permissions only after the last migration.
    create_permissions(installed.get_app_config("sales"), verbosity=0, using=using, apps=apps)
    Permission = apps.get_model("auth", "Permission")
    permission = Permission.objects.using(using).get(content_type__app_label="sales", codename="view_salesbucket")
    # An administrator may have renamed or deleted a group.
    for group in apps.get_model("auth", "Group").objects.using(using).filter(name__in=GROUPS):
        group.permissions.add(permission)


class Migration(migrations.Migration):
    dependencies = [("commerce", "0007_groups_of_emails"), ("sales", "0001_initial")]

    # The reverse is a no-op, because an administrator may have changed the groups by then.
    operations = [migrations.RunPython(add_permission, migrations.RunPython.noop)]
