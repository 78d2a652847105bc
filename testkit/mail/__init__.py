"""E-mail in tests: a mail server that can fail, e-mail deliveries, and workers that claim these (`events.work`)."""
