"""Helpers for tests of e-mail, and of leased work, for which deliveries of e-mails stand."""
