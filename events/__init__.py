"""The plumbing between a committed change and its consumers: outbox, publisher, relay, consumer, dead letters.

It knows neither the orders that record events nor the notifications made of them.
"""
