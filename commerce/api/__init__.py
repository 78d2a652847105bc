"""JSON, problem details, pagination and throttling of the REST API. Settings name them; no app imports them."""
