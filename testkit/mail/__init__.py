"""E-mail in tests: a mail server with faults, deliveries to send to it, and deliveries as samples of leased work."""
