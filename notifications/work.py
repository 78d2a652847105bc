"""The leased work (`events.work`) of notifications: sending their e-mails."""

from prometheus_client import Counter

from events.work.kinds import Kind, register
from notifications.mail import sending
from notifications.models import EmailDelivery

EMAIL = register(
    Kind(
        name="email",
        model=EmailDelivery,
        session=sending.session,
        outcomes_total=Counter("email_deliveries_total", "Attempts to send an e-mail, by outcome.", ["outcome"]),
        lease_s=300,
        action_s=sending.OPENING_S + sending.SENDING_S + sending.CLOSING_S,
        first_pause_s=30,
        last_pause_s=1800,
    )
)
