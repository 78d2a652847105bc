"""JSON, problem details, pagination and throttling of the REST API, enabled by settings. No app imports this package."""
