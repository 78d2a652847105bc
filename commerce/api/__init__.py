"""JSON, problem details, filters, pagination and throttling of the REST API, and the OpenAPI and AsyncAPI documents.

The settings name these classes, so that `orders` and the other apps with endpoints need not import them.
"""
