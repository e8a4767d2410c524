"""The C library's allocator, told to keep what a step gives back."""

import ctypes

# Names and numbers of glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8
_NEVER = -1  # Widened to the largest size there is: mallopt(3).


def keep_freed_memory() -> bool:
    """Lets this process keep freed memory; to be called before other threads start.

    On CPU a step takes a hundred megabytes and more for what it computes in between, and
    gives them back at its end; elsewhere films and checkpoints pass through it. glibc
    returns so large pieces to the system, which clears each page again when it is next
    asked (``benchmarks/kept_memory.py``). Numbers are the same; the process stays at least
    as large as it was at its largest.

    Returns:
        Whether the C library has these switches; others than glibc keep their ways.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    # Only the one main arena grows without limit; whatever is not in it is mapped anew.
    mallopt(_ARENA_MAX, 1)
    mallopt(_MMAP_MAX, 0)
    return bool(mallopt(_TRIM_THRESHOLD, _NEVER))
