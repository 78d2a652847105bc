"""The plumbing between a committed change and its consumers: outbox, publisher, relay, consumer, dead letters.

It knows no app of the project that uses it: apps register topics and subscriptions (`events.subscriptions`).
"""
