"""JSON, problem details, pagination and throttling of the REST API. Settings name these classes; apps do not import them."""
