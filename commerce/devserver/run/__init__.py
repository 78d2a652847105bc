"""`make run`, in the order of what it does: `surroundings`, `preparing`, the processes in `__main__`, `first_order`."""
