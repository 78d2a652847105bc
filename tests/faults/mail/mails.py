"""Record e-mail deliveries in the running site's database by SQL, and read their states."""

from collections import Counter
from collections.abc import Sequence

from testkit.database import rows
from testkit.mail.server import MailServer

SEND = ("django", "send_emails")


def sender_env(server: MailServer) -> dict[str, str]:
    """Return the environment variables of a process that sends mails to this server."""
    return {"EMAIL_URL": server.url, "EMAIL_FROM": "Shop <shop@shop.example>", "SITE_URL": "https://shop.example"}


def record_mails(count: int) -> list[str]:
    """Record a pending e-mail delivery, due at once, to each of `count` new users. Return the addresses."""
    sql = """
        WITH people AS (
            INSERT INTO auth_user (username, email, password, first_name, last_name, is_active, is_staff, is_superuser,
                date_joined)
            SELECT name, name || '@example.com', '', '', '', true, false, false, now()
            FROM (SELECT 'mailed-' || gen_random_uuid() AS name FROM generate_series(1, %(count)s)) AS names
            RETURNING id, email
        ), told AS (
            INSERT INTO notifications_notification (user_id, order_id, event_id, type, message, created_at)
            SELECT id, id, gen_random_uuid(), 'ORDER_CREATED', '주문', now() FROM people
            RETURNING id, user_id
        ), mails AS (
            INSERT INTO notifications_emaildelivery (notification_id, address, subject, text, deadline_at)
            SELECT told.id, email, '[Commerce] 주문', '주문', now() + interval '1 day'
            FROM told JOIN people ON people.id = user_id
        )
        SELECT email FROM people
        """
    return [address for (address,) in rows(sql, count=count)]


def states(addresses: Sequence[str]) -> Counter[str]:
    """Return how many deliveries to these addresses have each state."""
    sql = "SELECT state FROM notifications_emaildelivery WHERE address = ANY(%(addresses)s)"
    return Counter(state for (state,) in rows(sql, addresses=list(addresses)))


def all_done(addresses: Sequence[str]) -> bool:
    return states(addresses) == {"done": len(addresses)}


def copies(server: MailServer, addresses: Sequence[str]) -> list[int]:
    """Return how often the server has accepted a mail to each address. Check that mails to one address are equal."""
    for address in addresses:
        assert len({mail.content for mail in server.mails_to(address)}) <= 1, address
    return [len(server.mails_to(address)) for address in addresses]


def has_polled(name: str) -> bool:
    """Return whether the latest query of the sending process with this PGAPPNAME asked for due deliveries."""
    sql = "SELECT pid FROM pg_stat_activity WHERE application_name = %(name)s AND query LIKE '%%WITH due AS%%'"
    return bool(rows(sql, name=name))
