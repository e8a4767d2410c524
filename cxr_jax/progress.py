"""What long work tells people meanwhile: a bar on a terminal, elsewhere a line now and then."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import tqdm

Item = TypeVar("Item")
SECONDS_BETWEEN_LINES = 10.0


def track(
    items: Iterable[Item],
    *,
    total: int,
    what: str,
    size: Callable[[Item], int] = lambda _: 1,
) -> Iterator[Item]:
    """Yields the items and shows how many have passed.

    Args:
        items: what to go through.
        total: how many there will be.
        what: a word for them, such as ``films``.
        size: for how many an item stands; padding beyond ``total`` is not counted.
    """
    bar: Any = tqdm.tqdm(
        total=total, desc=what, unit="", leave=False, disable=not sys.stderr.isatty()
    )
    start = last = time.monotonic()
    told, count = False, 0
    with bar:
        for item in items:
            yield item
            new = min(count + size(item), total)
            bar.update(new - count)
            count, now = new, time.monotonic()
            late = now - last >= SECONDS_BETWEEN_LINES
            if bar.disable and (late or (told and count == total)):
                rate = count / max(now - start, 1e-9)
                say(f"{what}: {count:,}/{total:,}, {rate:.0f}/s")
                told, last = True, now


def say(line: str) -> None:
    """One line on stderr, above a bar if there is one."""
    tqdm.tqdm.write(line, file=sys.stderr)
    sys.stderr.flush()
