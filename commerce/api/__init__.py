"""JSON, problem details, pagination and throttling of the REST API.

The settings name these classes, so that `orders` and the other apps with endpoints need not import them.
"""
