"""Admin in a real browser, on a whole `make run`. Run by `make test-browser`."""
