from django.db import migrations

FUNCTION = """
    CREATE FUNCTION orders_refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF coalesce(current_setting('commerce.maintenance', TRUE), '') <> 'on' THEN
            RAISE EXCEPTION '% of % is refused: the history and the items of orders never change.', TG_OP, TG_TABLE_NAME
                USING ERRCODE = 'restrict_violation',
                HINT = 'For maintenance, run SET LOCAL commerce.maintenance = ''on'' in the same transaction.';
        END IF;
        RETURN NULL;
    END
    $$
    """
TRIGGER = """
    CREATE TRIGGER refuse_change BEFORE UPDATE OR DELETE OR TRUNCATE ON {table}
    FOR EACH STATEMENT EXECUTE FUNCTION orders_refuse_change()
    """


def triggers_on(table):
    return migrations.RunSQL(TRIGGER.format(table=table), f"DROP TRIGGER refuse_change ON {table}")


class Migration(migrations.Migration):
    """Let the database refuse changes of the history and of order items, unless the transaction declares maintenance.

    No version of this program changes these rows without declaring it. CREATE TRIGGER waits for transactions that write
    to the table, and holds up new ones meanwhile, so it gives up after a few seconds. The migration can then be run
    again.
    """

    dependencies = [
        ('orders', '0006_order_history'),
    ]

    operations = [
        migrations.RunSQL("SET LOCAL lock_timeout = '5s'", "SET LOCAL lock_timeout = '5s'"),
        migrations.RunSQL(FUNCTION, "DROP FUNCTION orders_refuse_change()"),
        triggers_on('orders_orderhistory'),
        triggers_on('orders_orderitem'),
    ]
