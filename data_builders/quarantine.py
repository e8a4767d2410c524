"""Films that a release names and a dataset does not hold: listed, counted, or refused."""

import collections
import csv
import dataclasses
import io
import math
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from cxr_jax.data import manifest as manifests
from cxr_jax.errors import DataError
from data_builders.reduction import Refused

NAME = "quarantine.csv"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Quarantine:
    """The films left out of one build.

    Attributes:
        path: where the list is kept when the build is refused; the dataset has its own.
        refused: name of a film → why it is left out.
    """

    path: pathlib.Path
    refused: dict[str, Refused] = dataclasses.field(default_factory=dict)

    def __contains__(self, name: str) -> bool:
        return name in self.refused

    def text(self) -> str:
        """The list: name, code, reason."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(["image", "code", "reason"])
        writer.writerows([n, r.code, r.reason] for n, r in self.refused.items())
        return out.getvalue()

    def counts(self) -> dict[str, int]:
        """Code → number of films."""
        return dict(collections.Counter(r.code for r in self.refused.values()))

    def foretell(self, absent: Sequence[str]) -> None:
        """One line on stderr, before the films are read, if some must be there and are not."""
        if absent:
            print(
                f"{len(absent)} films are absent, such as {absent[0]}; the others are read"
                " before the build is refused, so that all that is wrong is listed",
                file=sys.stderr,
            )

    def admit(
        self,
        *results: Mapping[str, Any],
        max_fraction: float,
        absent: Sequence[str] = (),
    ) -> None:
        """Adds the films that could not be read; refuses the build if there are too many.

        Args:
            *results: what became of every film, of each step; ``Refused`` or not.
            max_fraction: share that may be refused in each of them, in [0, 1].
            absent: films that must be there and are not, in ``refused`` already.

        Raises:
            DataError: a larger share in any of them, all in any of them, or absent films.
                It names the first and what the user can do; all are listed in ``path``.
        """
        worst, stopping = 0.0, dict.fromkeys(absent)
        for result in results:
            bad = {n: r for n, r in result.items() if isinstance(r, Refused)}
            self.refused.update(bad)
            share = len(bad) / max(len(result), 1)
            if share > max_fraction or share == 1:
                stopping |= dict.fromkeys(bad)
                worst = max(worst, share)
        if not stopping:
            return
        manifests.write_atomically(self.path, self.text())
        first = next(iter(stopping))
        raise DataError(
            f"{len(stopping)} films cannot be used"
            f" ({said({name: self.refused[name] for name in stopping})}), the first is"
            f" {first} ({self.refused[first].reason}); all are listed in {self.path}:"
            f" complete the release{_remedy(worst, absent=bool(absent))}"
        )

    def tell(self) -> None:
        """One line on stderr, if any film is left out."""
        if self.refused:
            print(
                f"left out: {said(self.refused)}; the dataset's {NAME} lists them",
                file=sys.stderr,
            )

    def forget(self) -> None:
        """Removes the list of an earlier attempt."""
        self.path.unlink(missing_ok=True)


def _remedy(share: float, *, absent: bool) -> str:
    """The options that build all the same, if any do."""
    if share == 1:
        return ""
    options = ["--allow_missing"] if absent else []
    if share:
        # Rounded up, so that the figure shown is one that works.
        options.append(f"--max_bad_fraction={math.ceil(share * 1e4) / 1e4:g}")
    return f"; {' '.join(options)} builds without them"


def said(refused: Mapping[str, Refused]) -> str:
    """How many films of each code, in words."""
    counts = collections.Counter(r.code for r in refused.values())
    return ", ".join(f"{count} {code}" for code, count in counts.most_common())
