"""Deliberate faults between real processes. The product's guarantees must hold through each of them."""
