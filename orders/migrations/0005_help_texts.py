import django.contrib.postgres.fields
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('orders', '0004_event_ids'),
    ]

    operations = [
        migrations.AlterField(
            model_name='idempotencykey',
            name='body',
            field=models.BinaryField(help_text='This is the body of the response with status 201, byte for byte.'),
        ),
        migrations.AlterField(
            model_name='idempotencykey',
            name='fingerprint',
            field=models.BinaryField(help_text="This is the SHA-256 of the request's body."),
        ),
        migrations.AlterField(
            model_name='order',
            name='event_ids',
            field=django.contrib.postgres.fields.ArrayField(base_field=models.UUIDField(), help_text='These are the ids of its events, the first one first. See `event_id`.', null=True, size=None),
        ),
        migrations.AlterField(
            model_name='order',
            name='last_sequence',
            field=models.PositiveIntegerField(default=0, help_text="The last event recorded for this order has this number. Change it under the row's lock only."),
        ),
        migrations.AlterField(
            model_name='orderitem',
            name='price',
            field=models.DecimalField(decimal_places=2, help_text='This is the price of one piece.', max_digits=12),
        ),
    ]
