"""A group that saves what notifications save, and needs the inbox to know what it has handled."""

import os

from events.subscriptions import Subscription, register
from notifications.subscriptions import notify
from orders.events import ORDER_EVENTS, decode

register(Subscription(group=os.environ["GROUP_WITH_INBOX"], topic=ORDER_EVENTS, decode=decode, handle=notify))
