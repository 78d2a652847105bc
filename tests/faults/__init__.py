"""Tests that cause faults between the product's processes. Its guarantees must hold through each fault."""
