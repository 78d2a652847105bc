"""Tests that cause faults between the product's processes. The product keeps its guarantees through each fault."""
