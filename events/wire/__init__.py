"""The parts of a message on its way through Kafka: its fields, headers, ids, times and text."""
