"""Code of `make run` only. Production does not import this package, and the image does not contain it."""
