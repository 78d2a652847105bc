"""Garbage collection in the long-running commands."""

import gc


def freeze_garbage() -> None:
    """Leave what is there by now, Django above all, out of every later collection.

    Walking over it takes 80 ms each time; without it, the relay sends 15 % more.
    """
    gc.collect()
    gc.freeze()
