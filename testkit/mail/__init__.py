"""E-mail in tests: a mail server that can fail, deliveries to send to it, and leased work made of deliveries."""
