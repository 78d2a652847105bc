"""Leased work: rows that one worker at a time claims for a limited time, for actions that cannot be rolled back.

Such an action sends a mail or charges a card. The transaction that needs the action records the row (`models`). A
worker claims the row with a lease (`leases`), and acts outside of any transaction. It records the outcome with all that
follows from it in a second transaction (`worker`). A command runs workers until it is told to stop (`running`).
"""
