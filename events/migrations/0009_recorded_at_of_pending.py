from django.db import migrations

# Without this a backlog would look as if it had begun with the migration. Rows that are being published at this moment
# are locked, and need no age.
PENDING_SINCE_CREATED = """
    UPDATE events_outboxevent SET recorded_at = created_at WHERE id IN (
        SELECT id FROM events_outboxevent
        WHERE published_at IS NULL AND parked_at IS NULL AND created_at < recorded_at
        FOR UPDATE SKIP LOCKED
    )
    """


class Migration(migrations.Migration):
    """A migration of its own, because the one before locks the whole table until it commits."""

    dependencies = [
        ('events', '0008_recorded_at'),
    ]

    operations = [
        migrations.RunSQL("SET LOCAL statement_timeout = 0", migrations.RunSQL.noop),
        migrations.RunSQL(PENDING_SINCE_CREATED, migrations.RunSQL.noop),
    ]
