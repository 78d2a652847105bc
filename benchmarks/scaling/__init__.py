"""Compute the tables of docs/scaling.md, which say what a load needs.

They follow from measured constants, formulas and a simulation.
"""
