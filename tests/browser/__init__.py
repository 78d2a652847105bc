"""Admin and the start page in a real browser, on a running `make run`. `make test-browser` runs these tests."""
