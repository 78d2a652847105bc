from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('events', '0009_recorded_at_of_pending'),
    ]

    operations = [
        migrations.AddIndex(
            model_name='deadletter',
            index=models.Index(condition=models.Q(('state', 'open')), fields=['group'], name='dead_letter_open_of_group'),
        ),
    ]
