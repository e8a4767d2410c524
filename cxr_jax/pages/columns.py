"""Runs side by side: a column per run and evaluated part, each headed with its split.

Figures of different splits or data are shown beside each other, never subtracted.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from cxr_jax.data.splits import LEAKING
from cxr_jax.pages import tables
from cxr_jax.pages.evidence import Evidence
from cxr_jax.pages.grids import Column, Grid, grid

OTHER_LIST = "\u00a0‡"


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Part:
    """An evaluated part of a run.

    Attributes:
        run: that it is of.
        result: content of its ``result.json``.
    """

    run: Evidence
    result: Mapping[str, Any]

    @property
    def phantom(self) -> bool:
        """Whether its films are computed."""
        return self.result["dataset"].startswith("phantom")

    @property
    def scheme(self) -> str:
        """By which the films were divided: the part's own, or else that of the run."""
        named = self.result["split"].rpartition("/")[0]
        return named or self.run.judging.get("scheme", "split unknown")

    @property
    def name(self) -> str:
        """Who made the figures."""
        who = "Scored" if self.result.get("scored") else "Ours"
        return f"{who}: {self.run.name}" if self.run.name else who

    @property
    def split(self) -> str:
        """Scheme and part, as ``patient_disjoint, test``."""
        return f"{self.scheme}, {self.result['split'].rpartition('/')[2]}"

    @property
    def head(self) -> str:
        """Of its column: run, dataset, scheme and part, number of films or studies."""
        return "\n".join([self.name, *self.films])

    @property
    def films(self) -> tuple[str, str, str]:
        """What its figures are of."""
        count = f"{self.result['n']:,} films"
        if read := self.result.get("studies"):
            count = f"{read['n']:,} studies"
        return self.result["dataset"], self.split, count

    def values(self, metric: str) -> dict[str, float | None]:
        """Class → figure."""
        found = self.result["metrics"][metric]["per_class"]
        return {name: block["value"] for name, block in found.items()}


def parts_of(runs: Sequence[Evidence]) -> list[Part]:
    """The part that each run is about, and its parts of other schemes.

    Those alone that have an AUROC: a file of boxes has none.
    """
    return [
        Part(run=run, result=result)
        for run in runs
        for result in run.results.values()
        if (result is run.main or "/" in result["split"])
        and "auroc" in result["metrics"]
    ]


def metrics_of(parts: Sequence[Part]) -> list[str]:
    """What all have: AUROC against the true state, where it is known, and the labels."""
    names = ("auroc@truth", "auroc")
    return [n for n in names if all(n in part.result["metrics"] for part in parts)]


def ours(part: Part, metric: str, listed: Sequence[str]) -> dict[str, str]:
    """Cells of a part, with intervals; the mean is of the listed classes.

    Where a run's own mean is of other classes, the mean is computed, has no interval and
    is marked.
    """
    block = part.result["metrics"][metric]
    cells = {n: tables.interval(value) for n, value in block["per_class"].items()}
    if set(block["mean"]["classes"]) == set(listed):
        return cells | {tables.MEAN: tables.interval(block["mean"])}
    mean = mean_of(part.values(metric), listed)
    mark = "" if mean is None else OTHER_LIST
    return cells | {tables.MEAN: tables.number(mean) + mark}


def mean_of(values: Mapping[str, float | None], listed: Sequence[str]) -> float | None:
    """Mean over the listed classes; none where one of them has no figure."""
    known = [values.get(name) for name in listed]
    return None if not known or None in known else sum(known) / len(known)


def list_of(parts: Sequence[Part], metric: str) -> Sequence[str]:
    """The classes that means run over: those of the first part."""
    return parts[0].result["metrics"][metric]["mean"]["classes"]


def names_of(parts: Sequence[Part], metric: str) -> list[str]:
    """Classes of any part."""
    return list(dict.fromkeys(n for part in parts for n in part.values(metric)))


def remarks(parts: Sequence[Part]) -> list[str]:
    """What must be said beside the columns: what means leave out, what leaks."""
    said = [*_left_out(parts)]
    for part in parts:
        notes = [n for n in part.result["notes"] if n.startswith("Leakage into")]
        if part.scheme in LEAKING:
            notes.insert(
                0,
                f"{part.scheme} divides films, not patients, and leaks: patients are in"
                " more than one part, and figures flatter. They show how much, beside"
                " those of patient-disjoint parts; they are not a result.",
            )
        said += [f"{part.name} ({part.split}): {note}" for note in notes]
    if any(_compared(part, parts) for part in parts):
        said.append(
            "Differences of runs are taken where films and labels are the same;"
            " python -m cxr_jax.score --compare gives their paired intervals."
        )
    if not all(same_films(part, parts[0]) for part in parts):
        said.append(
            "Films or labels of the columns differ: such figures are read beside each"
            " other, not subtracted."
        )
    own = [set(list_of([part], metrics_of(parts)[0])) for part in parts]
    if any(listed != own[0] for listed in own):
        said.append(
            f"{OTHER_LIST.strip()} Mean over the classes of the first column, without"
            " interval: the run's own mean is of other classes."
        )
    return said


def _left_out(parts: Sequence[Part]) -> list[str]:
    metric = metrics_of(parts)[0]
    listed, names = list_of(parts, metric), names_of(parts, metric)
    rest = [tables.words(name) for name in names if name not in listed]
    if not rest:
        return []
    mean = f"{tables.MEAN}: over {len(listed)} of {len(names)} classes"
    return [f"{mean}, without {', '.join(rest)}."]


def same_films(part: Part, other: Part) -> bool:
    """Whether two parts are the same films of the same data, with the same labels."""

    def about(result: Mapping[str, Any]) -> list[Any]:
        keys = ("dataset", "data_sha256", "split_sha256", "n")
        per_class = result["metrics"]["auroc"]["per_class"]
        counts = {name: block["positives"] for name, block in per_class.items()}
        return [*(result.get(key) for key in keys), counts]

    return about(part.result) == about(other.result)


def differences(
    ours: Mapping[str, float | None],
    theirs: Mapping[str, float | None],
    listed: Sequence[str],
) -> dict[str, str]:
    """Cells of ours minus theirs."""
    both = {
        name: value - theirs[name]
        for name, value in ours.items()
        if value is not None and theirs.get(name) is not None
    }
    cells = {name: _signed(value) for name, value in both.items()}
    mean = mean_of(both, listed)
    return cells if mean is None else cells | {tables.MEAN: _signed(mean)}


def heads(parts: Sequence[Part]) -> list[str]:
    """Of their columns; of several on the same films the name alone."""
    if _brief(parts):
        return [part.name for part in parts]
    return [part.head for part in parts]


def common(parts: Sequence[Part]) -> str:
    """What the heads leave out, for the caption; or empty."""
    return f"Ours: {', '.join(parts[0].films)}." if _brief(parts) else ""


def _brief(parts: Sequence[Part]) -> bool:
    same = all(same_films(part, parts[0]) for part in parts)
    return len(parts) > 2 and same and len({part.name for part in parts}) == len(parts)


def phantom_grid(parts: Sequence[Part], metric: str) -> Grid:
    """Runs on computed films beside each other, and what an oracle reaches."""
    listed = list_of(parts, metric)
    shown = beside(parts, metric, listed)
    truth = metric.endswith("@truth")
    if truth:
        found: dict[str, dict[str, float | None]] = {}
        for part in parts:
            found.setdefault(part.result["dataset"], {}).update(part.run.ceilings)
        for dataset, ceilings in found.items():
            where = "" if len(found) == 1 and common(parts) else f"\n{dataset}"
            cells = {n: tables.number(value) for n, value in ceilings.items()}
            mean = {tables.MEAN: tables.number(mean_of(ceilings, listed))}
            shown.append((f"Ceiling{where}", cells | mean))
    caption = (
        f"Computed films: AUROC against {'the true state' if truth else 'the labels'},"
    )
    caption += " 95% intervals in brackets."
    return grid(
        names_of(parts, metric),
        shown,
        mean=tables.MEAN,
        caption=f"{caption} {common(parts)}".strip(),
        best=highest(parts, metric),
    )


def beside(parts: Sequence[Part], metric: str, listed: Sequence[str]) -> list[Column]:
    """A column per part, and its difference to another run's on the same films.

    More than one difference would stand between the columns: see ``differences_apart``.
    """
    shown: list[Column] = []
    compared = _pairs(parts)
    for part, head in zip(parts, heads(parts), strict=True):
        shown.append((head, ours(part, metric, listed)))
        if len(compared) == 1 and part is compared[0][0]:
            shown.append(_difference(*compared[0], metric, listed))
    return shown


def differences_apart(parts: Sequence[Part], metric: str) -> Grid | None:
    """Differences to the first run on the same films, where there are several."""
    pairs, listed = _pairs(parts), list_of(parts, metric)
    if len(pairs) < 2:
        return None
    shown = [_difference(*pair, metric, listed) for pair in pairs]
    return grid(names_of(parts, metric), shown, mean=tables.MEAN)


def _difference(part: Part, other: Part, metric: str, listed: Sequence[str]) -> Column:
    values = [p.values(metric) for p in (part, other)]
    names = f"{part.run.name}\nto {other.run.name}"
    return f"Difference\n{names}\n{part.split}", differences(*values, listed)


def _pairs(parts: Sequence[Part]) -> list[tuple[Part, Part]]:
    """Parts, each with the first before it that is of another run, on the same films."""
    found = [(part, _compared(part, parts)) for part in parts]
    return [(part, other) for part, other in found if other is not None]


def highest(parts: Sequence[Part], metric: str) -> dict[str, set[str]]:
    """Class, or the mean → heads of the parts whose figure is the highest.

    Among those on the films of the first part alone, and to the three digits that are
    shown: equals stand out together. Of one part nothing does.
    """
    named = zip(parts, heads(parts), strict=True)
    same = [(part, head) for part, head in named if same_films(part, parts[0])]
    listed, found = list_of(parts, metric), {}
    if len(same) < 2:
        return found
    for name in (*names_of(parts, metric), tables.MEAN):
        figures = {}
        for part, head in same:
            values = part.values(metric)
            one = mean_of(values, listed) if name == tables.MEAN else values.get(name)
            figures |= {} if one is None else {head: round(one, 3)}
        top = max(figures.values(), default=None)
        found[name] = {head for head, figure in figures.items() if figure == top}
    return found


def _compared(part: Part, parts: Sequence[Part]) -> Part | None:
    """The first part before this one that is of another run, on the same films."""
    before = parts[: parts.index(part)]
    found = (p for p in before if p.run is not part.run and same_films(part, p))
    return next(found, None)


def _signed(value: float) -> str:
    text = f"{value:+.4f}".replace("-", "−")
    return text if float(text[1:]) else text[1:]
