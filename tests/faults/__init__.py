"""Faults made on purpose between real processes: what is promised must hold through each of them."""
