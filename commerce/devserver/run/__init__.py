"""`make run`, step by step.

`surroundings` starts the servers, `preparing` prepares the database and the topics, `__main__` starts the processes,
and `first_order` places an order.
"""
