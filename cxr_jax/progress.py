"""A progress bar on a terminal, a plain line now and then elsewhere."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

import tqdm

Item = TypeVar("Item")
SECONDS_BETWEEN_LINES = 10.0


def track(items: Iterable[Item], *, total: int, what: str) -> Iterator[Item]:
    """Yields the items and shows how many have passed.

    Args:
        items: what to go through.
        total: how many there will be.
        what: a word for them, such as ``films``.
    """
    if sys.stderr.isatty():
        yield from tqdm.tqdm(items, total=total, desc=what, unit="", leave=False)
        return
    start = last = time.monotonic()
    for count, item in enumerate(items, start=1):
        yield item
        now = time.monotonic()
        if now - last >= SECONDS_BETWEEN_LINES or count == total:
            rate = count / max(now - start, 1e-9)
            print(f"{what}: {count}/{total}, {rate:.0f}/s", file=sys.stderr, flush=True)
            last = now
