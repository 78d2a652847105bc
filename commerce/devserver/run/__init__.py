"""`make run`. Its modules in the order of its steps: `surroundings` starts the servers, `preparing` fills the database,
`__main__` starts the processes, and `first_order` places an order."""
