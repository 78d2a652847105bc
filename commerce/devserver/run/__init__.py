"""`make run` in the order of its steps: `surroundings`, `preparing`, the processes in `__main__`, `first_order`."""
