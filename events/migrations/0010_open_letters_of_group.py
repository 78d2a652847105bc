from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('events', '0009_recorded_at_of_pending'),
    ]

    operations = [
        # A table of millions of letters takes longer than the limit of ordinary statements.
        migrations.RunSQL("SET LOCAL statement_timeout = 0", migrations.RunSQL.noop),
        migrations.AddIndex(
            model_name='deadletter',
            index=models.Index(condition=models.Q(('state', 'open')), fields=['group'], name='dead_letter_open_of_group'),
        ),
    ]
