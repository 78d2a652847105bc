import django.db.models.deletion
import django.db.models.functions.datetime
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('events', '0012_dead_letter_attempts'),
    ]

    operations = [
        migrations.AlterField(
            model_name='consumergroup',
            name='consecutive_dead_letters',
            field=models.PositiveIntegerField(default=0, help_text='These dead letters have come since the last message that could be handled.'),
        ),
        migrations.AlterField(
            model_name='deadletter',
            name='event_id',
            field=models.UUIDField(db_index=True, help_text='It is empty if the message names no event id.', null=True),
        ),
        migrations.AlterField(
            model_name='deadletter',
            name='event_type',
            field=models.CharField(blank=True, help_text='It is empty if the message names no event type.', max_length=100),
        ),
        migrations.AlterField(
            model_name='deadletter',
            name='headers',
            field=models.BinaryField(help_text='The module events.wire.headers defines the encoding.'),
        ),
        migrations.AlterField(
            model_name='deadletter',
            name='is_readable',
            field=models.BooleanField(default=True, help_text='If not, the client could not read the record, and only its position is known.'),
        ),
        migrations.AlterField(
            model_name='deadletter',
            name='replay_count',
            field=models.PositiveSmallIntegerField(default=0, help_text='This is how often the message was sent to its topic again.'),
        ),
        migrations.AlterField(
            model_name='deadletter',
            name='subject_id',
            field=models.BigIntegerField(help_text="This is what the event is about. It is empty unless the body names it with the event's id and type.", null=True),
        ),
        migrations.AlterField(
            model_name='deadletter',
            name='timestamp',
            field=models.BigIntegerField(help_text="This is the record's own timestamp, in milliseconds since 1970."),
        ),
        migrations.AlterField(
            model_name='deadletter',
            name='value_hash',
            field=models.BinaryField(help_text='This is the SHA-256 of the value. A null value counts as an empty one.', max_length=32),
        ),
        migrations.AlterField(
            model_name='deathmark',
            name='deadly_offset',
            field=models.BigIntegerField(help_text='The message with this offset killed a process last.', null=True),
        ),
        migrations.AlterField(
            model_name='deathmark',
            name='deaths',
            field=models.PositiveSmallIntegerField(default=0, help_text='This is how many processes the message with the deadly offset killed.'),
        ),
        migrations.AlterField(
            model_name='deathmark',
            name='last_offset',
            field=models.BigIntegerField(help_text='This is the last offset of the batch.'),
        ),
        migrations.AlterField(
            model_name='inboxentry',
            name='handled_at',
            field=models.DateTimeField(help_text="This time is by the database's clock."),
        ),
        migrations.AlterField(
            model_name='inboxentry',
            name='owner',
            field=models.BigIntegerField(help_text='The event concerns this user.', null=True),
        ),
        migrations.AlterField(
            model_name='inboxentry',
            name='stream',
            field=models.CharField(help_text='The stream names what the event is about.', max_length=100),
        ),
        migrations.AlterField(
            model_name='outboxevent',
            name='created_at',
            field=models.DateTimeField(help_text='The event carries this time, which is by the clock of the process that recorded it.'),
        ),
        migrations.AlterField(
            model_name='outboxevent',
            name='dead_letter',
            field=models.ForeignKey(db_index=False, help_text='This message is a replay of that dead letter.', null=True, on_delete=django.db.models.deletion.SET_NULL, related_name='replays', to='events.deadletter'),
        ),
        migrations.AlterField(
            model_name='outboxevent',
            name='headers',
            field=models.BinaryField(help_text='The module events.wire.headers defines the encoding.'),
        ),
        migrations.AlterField(
            model_name='outboxevent',
            name='parked_at',
            field=models.DateTimeField(help_text='At this time it turned out that Kafka will never accept this message.', null=True),
        ),
        migrations.AlterField(
            model_name='outboxevent',
            name='partition',
            field=models.IntegerField(help_text='Leave empty to choose the partition by key.', null=True),
        ),
        migrations.AlterField(
            model_name='outboxevent',
            name='recorded_at',
            field=models.DateTimeField(db_default=django.db.models.functions.datetime.Now(), help_text="The age of the row counts from this time, which is by the database's clock."),
        ),
        migrations.AlterField(
            model_name='outboxevent',
            name='stream',
            field=models.CharField(help_text='The messages of a stream are sent in the order of their sequence.', max_length=100, null=True),
        ),
    ]
