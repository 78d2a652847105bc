from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('notifications', '0002_admin_lists'),
    ]

    operations = [
        migrations.AlterField(
            model_name='notification',
            name='event_id',
            field=models.UUIDField(help_text='This notification reports that event. Each event has at most one notification.', unique=True),
        ),
    ]
