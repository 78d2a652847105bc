"""A consumer group that saves the same rows as the notifications' group, but uses the inbox to find repeated events."""

import os

from events.subscriptions import Subscription, register
from notifications.subscriptions import notify
from orders.events import ORDER_EVENTS, decode

register(Subscription(group=os.environ["GROUP_WITH_INBOX"], topic=ORDER_EVENTS, decode=decode, handle=notify))
