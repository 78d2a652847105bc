"""The whole path through real processes, and what all tests share."""
