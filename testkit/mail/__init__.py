"""Mail in tests: a server with faults, deliveries to send to it, and deliveries that stand for any leased work."""
