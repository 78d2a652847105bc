"""Code of `make run`. `make reset`, `make kafka`, the tests and the benchmarks share parts of it.

Production does not import this package, and the image does not contain it.
"""
