"""Films that a release names and a dataset does not hold: listed, counted, or refused."""

import collections
import csv
import dataclasses
import io
import math
import pathlib
import sys
from collections.abc import Mapping, Sequence

from cxr_jax.data import manifest as manifests
from cxr_jax.errors import DataError
from data_builders.reduction import Reduced, Refused

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

    def admit(
        self, results: Mapping[str, Reduced | Refused], *, max_fraction: float
    ) -> None:
        """Adds the films that could not be read.

        Args:
            results: what became of every film on disk.
            max_fraction: share of them that may be refused, in [0, 1].

        Raises:
            DataError: a larger share, or all of them; all are listed in ``path``.
        """
        bad = {n: r for n, r in results.items() if isinstance(r, Refused)}
        self.refused.update(bad)
        share = len(bad) / len(results)
        if share > max_fraction or share == 1:
            # Rounded up, so that the figure shown is one that works.
            enough = math.ceil(share * 1e4) / 1e4
            remedy = f"; --max_bad_fraction={enough:g} builds without them"
            self.stop_if([*bad], remedy if share < 1 else "")

    def stop_if(self, names: Sequence[str], remedy: str) -> None:
        """Refuses the build if there is any of these films; lists all in ``path``.

        Raises:
            DataError: with the first of them, and what the user can do.
        """
        if not names:
            return
        manifests.write_atomically(self.path, self.text())
        counts = said({name: self.refused[name] for name in names})
        raise DataError(
            f"{len(names)} films cannot be used ({counts}), the first is {names[0]}"
            f" ({self.refused[names[0]].reason}); all are listed in {self.path}: complete"
            f" the release{remedy}"
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


def said(refused: Mapping[str, Refused]) -> str:
    """How many films of each code, in words."""
    counts = collections.Counter(r.code for r in refused.values())
    return ", ".join(f"{count} {code}" for code, count in counts.most_common())
