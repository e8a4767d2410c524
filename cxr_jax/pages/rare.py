"""Recall of the rarest classes at thresholds frozen on validation, run beside run."""

from collections.abc import Mapping, Sequence
from typing import Any

from cxr_jax.pages import html
from cxr_jax.pages.evidence import Evidence, apart
from cxr_jax.pages.tables import number, words

COUNT = 5
POINTS = {"youden": "At the Youden point", "f1": "At the best F1"}

Block = Mapping[str, Any]


def section(evidence: Evidence, *others: Evidence) -> str:
    """A table for each frozen point; nothing where thresholds are unknown.

    A run alone shows it where it has more classes than are listed.
    """
    groups = apart(evidence, *others)
    shown = [_tables(runs) for runs in groups]
    if not any(shown):
        return ""
    return html.section(
        "Recall of the rare classes",
        html.paragraph(
            "Sensitivity with its 95% interval, at the specificity that stands behind it:"
            " a lower threshold would find more of anything. Thresholds were frozen on"
            " the validation part of each run; nothing was chosen here."
        ),
        *shown,
    )


def _tables(runs: Sequence[Evidence]) -> str:
    known = [run for run in runs if _points(run)]
    if not known:
        return ""
    classes, how = _rarest(known[0])
    if len(known) == 1 and len(_points(known[0])) <= COUNT:
        return ""
    of = "the true state" if _truth(known[0]) else "the labels"
    caption = f"Against {of}. The rarest {len(classes)} classes by {how}."
    return "\n".join(
        _table(known, classes, point, f"{title}. {caption}")
        for point, title in POINTS.items()
        if any(point in points for run in known for points in _points(run).values())
    )


def _truth(run: Evidence) -> bool:
    return "per_class@truth" in (run.main.get("operating_points") or {})


def _points(run: Evidence) -> Mapping[str, Block]:
    """Class → point → what it does, against the truth where that is known."""
    block = run.main.get("operating_points") or {}
    return block.get("per_class@truth") or block.get("per_class") or {}


def _rarest(run: Evidence) -> tuple[list[str], str]:
    """Classes from the rarest on, and by what they were counted."""
    points = _points(run)
    counts = (run.labels.get("positives") or {}).get("train") or {}
    how = "positive films in training"
    if not all(name in counts for name in points):
        counts = {
            n: next(iter(kinds.values()))["positives"] for n, kinds in points.items()
        }
        how = "positive films here"
    return sorted(points, key=lambda name: counts[name])[:COUNT], how


def _table(
    runs: Sequence[Evidence], classes: Sequence[str], point: str, caption: str
) -> str:
    train = (runs[0].labels.get("positives") or {}).get("train") or {}
    heads = ["Class", *(["Positive\nin training"] if train else []), "Positive\nhere"]
    heads += [_head(run) for run in runs]
    rows = []
    for name in classes:
        found = [_points(run).get(name, {}).get(point) for run in runs]
        here = sorted({block["positives"] for block in found if block})
        rows.append(
            [
                words(name),
                *([f"{train[name]:,}" if name in train else "–"] if train else []),
                " / ".join(f"{count:,}" for count in here) or "–",
                *map(_cell, found),
            ]
        )
    return html.table(heads, rows, caption=caption)


def _head(run: Evidence) -> str:
    block = run.main["operating_points"]
    flag = "\nIN-SAMPLE" if block.get("in_sample") else ""
    scheme = run.judging.get("scheme", "")
    split = ", ".join(filter(None, [scheme, run.main["split"]]))
    return f"{run.name or 'Sensitivity'}\n{split}{flag}"


def _cell(block: Block | None) -> str:
    """``0.76 [0.69, 0.84] at 0.81``, or why there is no threshold."""
    if block is None:
        return "–"
    if block["threshold"] is None:
        return "unattainable"
    rate = block["sensitivity"]
    if rate["value"] is None:
        return "undefined"
    text = number(rate["value"], 2)
    if rate["low"] is not None:
        text += f" [{number(rate['low'], 2)}, {number(rate['high'], 2)}]"
    return f"{text} at {number(block['specificity']['value'], 2)}"
