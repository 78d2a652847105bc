"""Tests of admin and the start page in a real browser, on a running `make run`. Run them by `make test-browser`."""
