"""The event pipeline between a committed change and its consumers: outbox, publisher, relay, consumer, dead letters.

This package imports no app of the project. Apps register their topics and subscriptions in `events.subscriptions`.
"""
