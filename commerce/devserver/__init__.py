"""What only `make run` has. Production neither imports this package nor needs its folder to be there."""
