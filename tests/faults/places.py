"""Calls of the product at which tests kill or disturb a process: the targets of `tests.faults.launcher`.

A target names a function in the module that calls it, and a method in the module of its class.
"""

ORDER_RECORDED = "orders.views:place_order"
"""After this call, order and event are written; with an Idempotency-Key, their transaction is still open."""
VIEW_HAS_COMMITTED = "orders.views:publish"
"""Before this call, order and event are committed, and the publisher does not have the event."""
PUBLISHER_HAS_IT = "events.outbox.publisher:deliver"
"""Before this call, the fast path (the publisher) has taken the event and has not sent it."""
RELAY_HAS_IT = "events.outbox.relay:deliver"
"""Before this call, the relay holds its lock and has read a batch of events."""
SENT_BUT_NOT_RECORDED = "events.outbox.delivery:mark_published"
"""Before this call, Kafka has acknowledged the events, and they are not yet marked as published in the outbox."""

BATCH_READ = "events.consuming.processing:Processor.process"
"""Before this call, the consumer has polled a batch and has not saved it."""
BATCH_SAVED = "notifications.subscriptions:NotificationSubscription.save"
"""After this call, the notifications are written, and their transaction is still open."""
OFFSETS_COMMITTED = "events.kafka.receiving:Consumer.commit"
"""Before this call, the notifications are committed, and the offsets are not; after it, both are."""
MESSAGE_HANDLED = "notifications.subscriptions:to_notification"
"""The consumer makes this call for each event of a batch, before it writes the notifications."""
POLLING = "kafka.consumer.group:KafkaConsumer.poll"
"""The consumer makes this call each time that it reads from Kafka."""

BEFORE_SENDING = "notifications.mail.sending:_confirm"
"""Before this call, the sending process has a connection to the mail server, and has not handed the mail over."""
MAIL_SENT = "events.work.worker:settle"
"""Before this call, the mail server has accepted mails, and their outcomes are not yet recorded in the database."""
MAIL_RECORDED = "events.work.worker:Worker._record_once"
"""After this call, the outcomes of sent mails are committed in the database."""

BEFORE_CHARGING = "payments.providers:HTTPPayments.charge"
"""Before this call, a worker has claimed a charge, and has not sent it to the provider."""
ANSWER_NOT_RECORDED = "events.work.worker:settle"
"""Before this call, the provider has answered, and its answers are not yet recorded in the database. Workers also make
the call for the deadlines of fulfilments, and to give work back."""
ANSWER_RECORDED = "events.work.worker:Worker._record_once"
"""After this call, the provider's answers and the replies are committed. Workers also make the call for the deadlines
of fulfilments."""

COMMAND_CLAIMED = "events.inbox:claim"
"""After this call, a group has claimed messages, and its transaction is still open."""
FULFILMENT_ADVANCED = "fulfilment.subscriptions:advance"
"""After this call, replies have changed fulfilments, steps and orders, and the transaction is still open."""
DEADLINES_TAKEN = "fulfilment.work:advance"
"""After this call, deadlines have changed fulfilments, and the transaction is still open."""
BOOKING = "shipping.providers:HTTPShipments.book"
"""Before this call, the worker has not sent the booking of a shipment to the carrier.

After it, the carrier has booked the shipment, and the booking is not yet recorded in the database.
"""
REFUNDING = "payments.providers:HTTPPayments.refund"
"""After this call, the provider has refunded a charge, and the refund is not yet recorded in the database."""
CANCELLING_A_SHIPMENT = "shipping.providers:HTTPShipments.cancel"
"""After this call, the carrier has cancelled a shipment, and this is not yet recorded in the database."""
