from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('commerce', '0005_lag_reading'),
    ]

    operations = [
        migrations.AlterField(
            model_name='accountname',
            name='collides',
            field=models.BooleanField(default=False, help_text='Another account had the same folded name before folded names were unique.'),
        ),
        migrations.AlterField(
            model_name='requestcount',
            name='client',
            field=models.CharField(help_text='It names the limit, and the address or the user whose requests are counted.', max_length=100, primary_key=True, serialize=False),
        ),
        migrations.AlterField(
            model_name='requestcount',
            name='ends_at',
            field=models.DateTimeField(db_index=True, help_text='The window ends at this time.'),
        ),
    ]
