"""A message on its way through Kafka: fields, headers, ids, times and text, and the JSON of commands and replies."""
