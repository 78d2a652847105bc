"""Mail in tests: a server with faults, and deliveries to send to it."""
