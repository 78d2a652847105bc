"""Tests of several apps together, of the product's processes, and of the repository itself."""
