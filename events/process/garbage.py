"""Garbage collection in processes that run for long."""

import gc

YOUNG_OBJECTS = 10_000
"""That are made before Python looks among them for garbage; by itself it does after 700."""


def collect_seldom() -> None:
    """Leave what is there by now, Django above all, out of every later collection, and collect less often.

    Walking over Django takes 60 to 100 ms, for which a web worker answers nobody, every 2,500 orders; the other
    collections took 3 % of its time. Without the walk, the relay sends 15 % more.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS, 10, 10)
