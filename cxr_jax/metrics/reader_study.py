"""A reader study: every figure of every protocol and class, with intervals.

One draw of patients serves all figures, so that all differences are paired. Two kinds
of interval are offered: over cases (for these readers), and over cases and readers (for
readers like them).
"""

import dataclasses
from collections.abc import Mapping, Sequence

import jax
import numpy as np

from cxr_jax.metrics import (
    agreement,
    bootstrap,
    confusion,
    fleiss,
    probit,
    ranking,
    reader_bootstrap,
)
from cxr_jax.metrics.agreement import Comparison, Votes
from cxr_jax.metrics.estimates import Estimate, estimates


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Panel:
    """Readers and a model on the same N films.

    Attributes:
        calls: ``[N, R, C]`` in {0, 1}, NaN where a reader did not read a film.
        scores: ``[N, C]``, the model's, finite.
        model: ``[N, C]``, the model's calls in {0, 1}, NaN where it makes none.
        truth: ``[N, C]`` in {0, 1} or NaN, or None.
        units: what the bootstrap draws.
    """

    calls: np.ndarray
    scores: np.ndarray
    model: np.ndarray
    truth: np.ndarray | None
    units: bootstrap.Units


@dataclasses.dataclass(frozen=True, kw_only=True)
class Figures:
    """One metric of one class by one protocol.

    Attributes:
        readers: of each reader.
        average: mean over the readers.
        model: mean over the model's references.
        difference: model minus the readers' average, on the films they share.
    """

    readers: Sequence[Estimate]
    average: Estimate
    model: Estimate
    difference: Estimate


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ranked:
    """How the model ranks films, of one class by one protocol.

    Attributes:
        groups: AUROC against each reference.
        mean: their mean: one reading of a single figure.
        pooled: AUROC of all pairs of film and reference in one ranking: the other.
        reader_area: area under the pooled-probit reader curve.
        separation: d' of that curve.
    """

    groups: Sequence[Estimate]
    mean: Estimate
    pooled: Estimate
    reader_area: Estimate
    separation: Estimate


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Study:
    """What one protocol found; per class, in the order of the panel.

    Attributes:
        references: float ``[N, G, C]``, what calls and scores were set against.
        counts: evidence in each reference, ``[C][G]``.
        metrics: name → one ``Figures`` per class; names of ``confusion.METRICS``.
        ranked: one per class; empty where a protocol has no ROC.
    """

    references: np.ndarray
    counts: Sequence[Sequence[ranking.LabelCount]]
    metrics: Mapping[str, Sequence[Figures]]
    ranked: Sequence[Ranked]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Studies:
    """All protocols, and the readers' agreement."""

    protocols: Mapping[str, Study]
    fleiss: Sequence[Estimate]


def study_readers(
    panel: Panel,
    protocols: Sequence[str],
    *,
    key: jax.Array,
    resamples: int = 10_000,
    votes: Votes | None = None,
) -> Studies:
    """Runs the protocols on one panel.

    Args:
        panel: readers and a model.
        protocols: of ``agreement.NAMES``.
        key: of the bootstrap.
        resamples: of patients, the same for everything; 0 for no intervals.
        votes: how readers vote, for ``majority``.

    Raises:
        ConfigError: a protocol that this panel does not allow.
    """
    compared = {
        name: agreement.compare(
            name, panel.calls, panel.model, truth=panel.truth, votes=votes
        )
        for name in protocols
    }
    agree = fleiss.terms(fleiss.binary_counts(panel.calls))
    drawn = _resample(panel, compared, agree, key, resamples) if resamples else None
    studies, kappas = {}, agree.sum(axis=0)
    for name, comparison in compared.items():
        studies[name] = _study(panel, name, comparison, drawn)
    many = None if drawn is None else fleiss.kappa(drawn.tables["fleiss"])
    return Studies(
        protocols=studies, fleiss=estimates(fleiss.kappa(kappas), many, None)
    )


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class _Drawn:
    """Resamples, cut apart again; S first in every array."""

    tables: Mapping[str, np.ndarray]
    groups: Mapping[str, np.ndarray]
    pooled: np.ndarray | None
    pooled_drawn: np.ndarray | None
    readers: np.ndarray


def _tables(
    compared: Mapping[str, Comparison], agree: np.ndarray
) -> dict[str, np.ndarray]:
    """Everything that is summed over films, N first."""
    tables = {"fleiss": agree}
    for name, comparison in compared.items():
        for part in ("readers", "model", "paired"):
            tables[f"{name}/{part}"] = getattr(comparison, part)
    return tables


def _ranked_names(compared: Mapping[str, Comparison]) -> list[str]:
    """Protocols with a ROC; the one whose references belong to readers comes first."""
    return [name for name in ("majority", "truth") if name in compared]


def _resample(
    panel: Panel,
    compared: Mapping[str, Comparison],
    agree: np.ndarray,
    key: jax.Array,
    resamples: int,
) -> _Drawn:
    tables = _tables(compared, agree)
    films, readers, classes = panel.calls.shape
    flat = [x.reshape(films, -1) for x in tables.values()]
    names = _ranked_names(compared)
    references = [compared[name].references for name in names]
    if "majority" not in names:  # Nothing to pool: a place holder without labels.
        references.insert(0, np.full((films, readers, classes), np.nan))
    groups = reader_bootstrap.rank_groups(
        panel.scores, np.concatenate(references, axis=1), panel.units
    )
    draws = reader_bootstrap.resample(
        key,
        np.concatenate(flat, axis=1),
        groups,
        panel.units,
        readers=readers,
        resamples=resamples,
    )
    ends = np.cumsum([x.shape[1] for x in flat])
    parts = np.split(draws.sums, ends[:-1], axis=1)
    return _Drawn(
        tables={
            name: part.reshape(-1, *table.shape[1:])
            for (name, table), part in zip(tables.items(), parts, strict=True)
        },
        groups={
            "majority": draws.auroc[:, :readers],
            "truth": draws.auroc[:, readers:],
        },
        pooled=draws.pooled,
        pooled_drawn=draws.pooled_drawn,
        readers=draws.readers,
    )


def _study(
    panel: Panel, name: str, comparison: Comparison, drawn: _Drawn | None
) -> Study:
    parts = ("readers", "model", "paired")
    point = [getattr(comparison, part).sum(axis=0)[None] for part in parts]
    many = None
    if drawn is not None:
        many = [drawn.tables[f"{name}/{part}"] for part in parts]
    patients = panel.units.patients
    by_reference = [
        ranking.count_labels(comparison.references[:, g], patients)
        for g in range(comparison.references.shape[1])
    ]
    return Study(
        references=comparison.references,
        counts=list(zip(*by_reference, strict=True)),
        metrics={
            metric: _figures(function, point, many, drawn)
            for metric, function in confusion.METRICS.items()
        },
        ranked=()
        if name == "each_other"
        else _rank(panel, name, comparison, point[0], drawn),
    )


def _figures(function, point, many, drawn: _Drawn | None) -> list[Figures]:
    one = agreement.average(*map(function, point))
    cases = both = None
    if many is not None:
        values = [function(x) for x in many]
        cases = agreement.average(*values)
        both = agreement.average(*values, drawn=drawn.readers)

    def parts(part: str, *, with_readers: bool = True) -> list:
        resampled = None if cases is None else getattr(cases, part)
        wide = getattr(both, part) if both is not None and with_readers else None
        return estimates(getattr(one, part)[0], resampled, wide)

    # A single reader's figure says nothing of readers like it.
    readers = parts("readers", with_readers=False)
    rest = [parts(part) for part in ("average", "model", "difference")]
    return [
        Figures(readers=each, average=mean, model=model, difference=difference)
        for each, mean, model, difference in zip(
            zip(*readers, strict=True), *rest, strict=True
        )
    ]


def _rank(
    panel: Panel,
    name: str,
    comparison: Comparison,
    counts: np.ndarray,
    drawn: _Drawn | None,
) -> list[Ranked]:
    references = comparison.references
    groups = references.shape[1]
    one = np.stack(
        [ranking.auroc(panel.scores, references[:, g]) for g in range(groups)]
    )
    pooled = ranking.auroc(
        np.repeat(panel.scores, groups, axis=0),
        references.reshape(-1, references.shape[-1]),
    )
    distance = probit.separation(counts[0, :, 0])
    many = many_mean = wide_mean = many_pooled = wide_pooled = many_d = wide_d = None
    if drawn is not None:
        many = drawn.groups[name]
        many_mean = many.mean(axis=1)
        many_pooled, wide_mean, wide_pooled = many_mean, None, None
        if groups > 1:
            many_pooled, wide_pooled = drawn.pooled, drawn.pooled_drawn
            wide_mean = agreement.weighted_mean(many, drawn.readers)
        table = drawn.tables[f"{name}/readers"][:, :, 0]
        many_d = probit.separation(table)
        wide_d = probit.separation(table, drawn=drawn.readers)
    spread = estimates(distance, many_d, wide_d)
    area = estimates(
        probit.area(distance),
        *(None if d is None else probit.area(d) for d in (many_d, wide_d)),
    )
    each = estimates(one, many, None)
    mean = estimates(one.mean(axis=0), many_mean, wide_mean)
    pool = estimates(pooled, many_pooled, wide_pooled)
    return [
        Ranked(groups=g, mean=m, pooled=p, reader_area=a, separation=d)
        for g, m, p, a, d in zip(
            zip(*each, strict=True), mean, pool, area, spread, strict=True
        )
    ]
