"""Make Python's garbage collector run less often in long-running processes, because it pauses all their threads."""

import gc

GC_THRESHOLD_OBJECTS = 10_000
"""Number of new objects after which Python collects the youngest generation.

The default is 700 up to Python 3.12, and 2000 from Python 3.13 on.
"""


def reduce_garbage_collection() -> None:
    """Exclude all existing objects, mainly Django's, from later collections, and collect less often.

    A full collection over Django's objects stops every thread of the process (docs/performance.md).
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD_OBJECTS, 10, 10)
