"""JSON, problem details, pagination and throttling of the REST API. Settings name the classes; no app imports them."""
