"""The programs that the benchmarks compare with the product: usual designs, and programs that do only the bare work."""
