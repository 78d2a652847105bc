"""Tests of the whole product: they run its processes, or check the repository itself."""
