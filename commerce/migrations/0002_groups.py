from django.apps import apps as installed
from django.contrib.auth.management import create_permissions
from django.db import migrations

LOOK = (
    "orders.view_order",
    "orders.view_orderitem",
    "notifications.view_notification",
    "events.view_outboxevent",
    "events.view_deadletter",
)
ACT = (
    "orders.pay_order",
    "orders.cancel_order",
    "events.send_again_outboxevent",
    "events.replay_deadletter",
    "events.dismiss_deadletter",
)
GROUPS = {"support": LOOK, "operator": LOOK + ACT}


def create_groups(apps, schema_editor):
    using = schema_editor.connection.alias
    # On a new database Django creates permissions only after the last migration.
    for label in ("events", "orders", "notifications"):
        create_permissions(installed.get_app_config(label), verbosity=0, using=using, apps=apps)
    Group = apps.get_model("auth", "Group")
    Permission = apps.get_model("auth", "Permission")
    for name, permissions in GROUPS.items():
        group, _ = Group.objects.using(using).get_or_create(name=name)
        for permission in permissions:
            label, codename = permission.split(".")
            group.permissions.add(
                Permission.objects.using(using).get(content_type__app_label=label, codename=codename)
            )


class Migration(migrations.Migration):
    dependencies = [
        ("commerce", "0001_request_count"),
        ("auth", "0012_alter_user_first_name_max_length"),
        ("contenttypes", "0002_remove_content_type_name"),
        ("events", "0004_admin_lists"),
        ("orders", "0003_admin_lists"),
        ("notifications", "0002_admin_lists"),
    ]

    # The reverse is a no-op, because a group may have members and further permissions by then.
    operations = [migrations.RunPython(create_groups, migrations.RunPython.noop)]
