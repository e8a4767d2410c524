"""The gallery: films under their activation maps, failures among them and named so."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from cxr_jax.pages import html, overlays
from cxr_jax.pages.tables import words
from cxr_jax.samples import Samples

# The frozen point that calls films here.
POINT, POINT_NAME = "f1", "best F1"
FAILURES = {(True, False): "Missed", (False, True): "False alarm"}
REST = {(True, True): "Found", (False, False): "Not called, rightly"}


def gallery(
    samples: Samples, *, films: int, points: Mapping[str, Any] | None = None
) -> str:
    """Three films or studies a class: found, missed, falsely seen.

    Args:
        samples: class after class.
        films: number of films of the split, among which the shown ones rank.
        points: the block ``operating_points`` of a result. Where it has thresholds, each
            film is said to be found, missed, a false alarm or not called.

    Returns:
        HTML; the films of a class share one colour scale.
    """
    bar, parts = overlays.color_bar(), []
    thresholds = _thresholds(points or {}) if samples.scores is not None else {}
    if thresholds:
        parts.append(html.paragraph(_about(samples)))
    for name in dict.fromkeys(samples.classes.tolist()):
        rows = np.flatnonzero(samples.classes == name)
        highest = float(samples.maps[rows].max())
        limit = max(highest, 1e-6)
        shown = "".join(
            _film(samples, row, limit, films=films, thresholds=thresholds)
            for row in rows
        )
        high = f"{limit:.2g} logits" if highest > 0 else "no map above 0"
        parts.append(html.heading(words(name), level=3))
        if name in thresholds:
            called = f"Called at {thresholds[name]:.4g} and above."
            parts.append(html.paragraph(called, kind="note"))
        parts.append(html.scale(bar, low="0", high=high))
        parts.append(f'<div class="films">{shown}</div>')
    return "\n".join(parts)


def _thresholds(points: Mapping[str, Any]) -> dict[str, float]:
    """Class → threshold, of those that have one."""
    found = {
        name: kinds.get(POINT, {}).get("threshold")
        for name, kinds in (points.get("per_class") or {}).items()
    }
    return {name: value for name, value in found.items() if value is not None}


def _about(samples: Samples) -> str:
    text = (
        f"Calls are at the threshold of the {POINT_NAME}, frozen on validation: a positive"
        " below it is missed, a negative at or above it is a false alarm. Below each film"
        " stand all findings that are called, with their scores, and all that are"
        " labelled."
    )
    if samples.truths is not None:
        text += " The true state decides what is positive."
    if samples.spreads is not None:
        text += " ±: standard deviation over dropout masks."
    return text


def _film(
    samples: Samples,
    row: int,
    limit: float,
    *,
    films: int,
    thresholds: Mapping[str, float],
) -> str:
    image = overlays.film_with_map(
        samples.films[row], samples.maps[row], samples.boxes[row], limit=limit
    )
    kind, name = str(samples.kinds[row]), str(samples.ids[row])
    prob, rank = samples.probs[row], samples.ranks[row]
    caption = f"{kind}: {name}; score {prob:.3f}, rank {rank:,} of {films:,}"
    shown, verdict = str(samples.classes[row]), None
    if thresholds:
        caption = "\n".join([caption, *_findings(samples, row, thresholds)])
    if shown in thresholds:
        column = samples.names.tolist().index(shown)
        reference = samples.labels if samples.truths is None else samples.truths
        verdict = bool(reference[row, column] == 1), bool(prob >= thresholds[shown])
    return html.figure(
        image,
        caption,
        alt=f"film {name} and its activation map",
        verdict=(FAILURES | REST).get(verdict, ""),
        failed=verdict in FAILURES,
    )


def _findings(samples: Samples, row: int, thresholds: Mapping[str, float]) -> list[str]:
    """What is called, what is labelled and, where it differs, what is there."""
    names = samples.names.tolist()
    scores = samples.scores[row]
    called = [
        f"{words(names[c])} {scores[c]:.2f}{_spread(samples, row, c)}"
        for c in np.argsort(-scores, kind="stable")
        if scores[c] >= thresholds.get(names[c], np.inf)
    ]
    labelled = _positives(samples.labels[row], names)
    lines = [f"Called: {', '.join(called) or 'nothing'}", f"Labelled: {labelled}"]
    if samples.truths is not None:
        there = _positives(samples.truths[row], names)
        lines += [f"True state: {there}"] if there != labelled else []
    return lines


def _spread(samples: Samples, row: int, column: int) -> str:
    return "" if samples.spreads is None else f" ± {samples.spreads[row, column]:.2f}"


def _positives(labels: np.ndarray, names: list[str]) -> str:
    found = [
        words(name) for name, label in zip(names, labels, strict=True) if label == 1
    ]
    return ", ".join(found) or "no finding"
