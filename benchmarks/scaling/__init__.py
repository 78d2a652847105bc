"""What a load needs: the tables of docs/scaling.md, from measured constants, formulas and a simulation."""
