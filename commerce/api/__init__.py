"""JSON, problem details, pagination and throttling of the REST API.

Settings name these classes; no app imports them.
"""
