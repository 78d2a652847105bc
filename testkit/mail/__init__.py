"""E-mail in tests: a mail server that can fail, e-mail deliveries, and workers that do these as leased work."""
