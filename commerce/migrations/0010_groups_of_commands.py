from django.apps import apps as installed
from django.contrib.auth.management import create_permissions
from django.db import migrations

PERMISSIONS = {"support": ("view",), "operator": ("view", "try_again")}
MODELS = {"payments": "paymentcommand", "shipping": "shippingcommand"}


def add_permissions(apps, schema_editor):
    using = schema_editor.connection.alias
    Permission = apps.get_model("auth", "Permission")
    for app, model in MODELS.items():
        # Django creates permissions only after the last migration.
        create_permissions(installed.get_app_config(app), verbosity=0, using=using, apps=apps)
        # An administrator may have renamed or deleted a group.
        for group in apps.get_model("auth", "Group").objects.using(using).filter(name__in=PERMISSIONS):
            names = [f"{action}_{model}" for action in PERMISSIONS[group.name]]
            group.permissions.add(
                *Permission.objects.using(using).filter(content_type__app_label=app, codename__in=names)
            )


class Migration(migrations.Migration):
    dependencies = [
        ("commerce", "0009_groups_of_anomalies"),
        ("payments", "0001_initial"),
        ("shipping", "0001_initial"),
    ]

    # The reverse is a no-op, because an administrator may have changed the groups by then.
    operations = [migrations.RunPython(add_permissions, migrations.RunPython.noop)]
