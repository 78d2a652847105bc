
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('orders', '0005_help_texts'),
    ]

    operations = [
        migrations.CreateModel(
            name='OrderHistory',
            fields=[
                ('id', models.BigIntegerField(primary_key=True, serialize=False)),
                ('event_id', models.UUIDField(unique=True)),
                ('event_type', models.CharField(max_length=100)),
                ('topic', models.CharField(max_length=249)),
                ('partition', models.IntegerField(null=True)),
                ('key', models.BinaryField(null=True)),
                ('value', models.BinaryField(null=True)),
                ('headers', models.BinaryField()),
                ('stream', models.CharField(max_length=100)),
                ('sequence', models.PositiveIntegerField()),
                ('created_at', models.DateTimeField()),
                ('recorded_at', models.DateTimeField()),
                ('published_at', models.DateTimeField(verbose_name='acknowledged at')),
                ('published_path', models.CharField(choices=[('fast', 'Fast'), ('relay', 'Relay')], max_length=5, null=True)),
                ('published_partition', models.IntegerField()),
                ('published_offset', models.BigIntegerField()),
            ],
            options={
                'verbose_name': 'event of the history',
                'verbose_name_plural': 'history of orders',
                'constraints': [models.UniqueConstraint(fields=('stream', 'sequence'), name='history_sequence_once_per_stream')],
            },
        ),
    ]
