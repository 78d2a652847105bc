"""Leased work: actions that cannot be rolled back, such as sending a mail or charging a card.

A piece of work is a row, recorded in the transaction that needs it (`models`). A worker claims the row with a lease
(`leases`), acts outside of any transaction, and records the outcome with all that follows from it in a second
transaction (`worker`). A command runs workers until it is told to stop (`running`).
"""
