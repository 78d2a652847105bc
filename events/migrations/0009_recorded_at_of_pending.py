from django.db import migrations

# Without this statement, a backlog would seem to begin with the migration. A locked row is being published and needs
# no age.
PENDING_SINCE_CREATED = """
    UPDATE events_outboxevent SET recorded_at = created_at WHERE id IN (
        SELECT id FROM events_outboxevent
        WHERE published_at IS NULL AND parked_at IS NULL AND created_at < recorded_at
        FOR UPDATE SKIP LOCKED
    )
    """


class Migration(migrations.Migration):
    """Set `recorded_at` of pending rows. The previous migration does not do this, because it locks the whole table."""

    dependencies = [
        ('events', '0008_recorded_at'),
    ]

    operations = [
        migrations.RunSQL("SET LOCAL statement_timeout = 0", migrations.RunSQL.noop),
        migrations.RunSQL(PENDING_SINCE_CREATED, migrations.RunSQL.noop),
    ]
