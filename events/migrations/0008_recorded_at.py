import django.db.models.functions.datetime
from django.db import migrations, models


class Migration(migrations.Migration):
    """Add `recorded_at` with a default of the database, because processes of the previous release insert without it.

    Django's `Now` is constant within a statement, so PostgreSQL stores the value once and rewrites no row.
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
