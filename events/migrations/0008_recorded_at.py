import django.db.models.functions.datetime
from django.db import migrations, models


class Migration(migrations.Migration):
    """PostgreSQL computes this default once and keeps it beside the table, so that no row is written: Django's `Now`
    stays the same within a statement. Processes of the release before insert without the column.
    """

    dependencies = [
        ('events', '0007_subjects_of_dead_letters'),
    ]

    operations = [
        migrations.AddField(
            model_name='outboxevent',
            name='recorded_at',
            field=models.DateTimeField(db_default=django.db.models.functions.datetime.Now(), help_text="By the database's clock; its age counts from here."),
        ),
        migrations.AlterField(
            model_name='outboxevent',
            name='created_at',
            field=models.DateTimeField(help_text='By the clock of the process that recorded it; events carry this time.'),
        ),
    ]
