"""Operating points and calibrated probabilities, frozen on validation."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from cxr_jax.pages import figures, html, tables
from cxr_jax.pages.evidence import Evidence
from cxr_jax.pages.figures import BLUE, FAINT, GRID, INK, ORANGE
from cxr_jax.pages.tables import number, words

SHOWN_PREVALENCES = 5  # classes of the figure of predictive values

Block = Mapping[str, Any]


def section(evidence: Evidence) -> str:
    """Thresholds, what they do, and what a probability means; "" where unknown."""
    points = evidence.main.get("operating_points") or {}
    platt = evidence.main.get("calibration", {}).get("platt") or {}
    if not evidence.calibrated:
        return ""
    return html.section(
        "Operating points and probabilities",
        html.paragraph(_origin(evidence, points or platt)),
        *_points(points),
        *_predictive(points),
        *_platt(evidence.main, platt),
        *_decisions(points),
    )


def _origin(evidence: Evidence, block: Block) -> str:
    """Where the thresholds come from, and whether that is where they are shown."""
    if block.get("reason"):
        return f"No thresholds and no scaling: {block['reason']}."
    weights = (evidence.main.get("weights_sha256") or "unknown")[:16]
    text = (
        f"Thresholds and scalings were frozen on {block['chosen_on']['n']:,} films of the"
        f" validation part with the weights {weights}."
    )
    part = evidence.main["split"]
    if block["in_sample"]:
        return (
            f"{text} IN-SAMPLE: this is that part itself. The figures below flatter, and"
            " show only what was chosen."
        )
    return (
        f"{text} They are reported on the {part} part; nothing was chosen on it."
        " Thresholds act on raw scores: a film is called where its score is at least the"
        " threshold."
    )


def _points(block: Block) -> list[str]:
    """Two tables for each kind of point; all but the first kind are folded away."""
    per_class = block.get("per_class") or {}
    kinds = list(dict.fromkeys(k for points in per_class.values() for k in points))
    parts = []
    for kind in kinds:
        chosen = {name: points[kind] for name, points in per_class.items()}
        both = [_rates_table(chosen, block), _values_table(chosen)]
        if parts:
            parts.append(html.folded(_kind(kind), *both))
        else:
            parts += [html.heading(_kind(kind), level=3), *both]
    if per_class:
        parts.append(html.paragraph(_legend(block), kind="note"))
    return parts


def _kind(name: str) -> str:
    fixed, _, level = name.partition("@")
    titles = {
        "youden": "Youden: highest sensitivity + specificity − 1",
        "f1": "Best F1",
        "sensitivity": f"Fixed sensitivity: at least {level} on validation",
        "specificity": f"Fixed specificity: at least {level} on validation",
    }
    return titles.get(fixed, name)


def _legend(block: Block) -> str:
    text = "95% intervals in brackets."
    if block["resamples"]:
        text = (
            f"95% intervals in brackets: percentile bootstrap, {block['resamples']:,}"
            f" resamples, resampling unit: {block['resampling_unit']}; the threshold is"
            " held. Shares of 0 or 1: exact interval of the patients. ∞: no upper end."
        )
    return (
        f"{text} Flags: called films of 100. LR: likelihood ratio. A point that only"
        " calling every film, or no positive one, would reach is unattainable. PPV, NPV,"
        " F1 and flags hold at the prevalence of these films."
    )


def _rates_table(chosen: Mapping[str, Block], block: Block) -> str:
    rows = []
    for name, point in chosen.items():
        threshold = point["threshold"]
        head = [words(name), "–" if threshold is None else f"{threshold:.4g}"]
        said = "; ".join(t for t in (point["reason"], point["flag"]) if t)
        if threshold is None:
            rows.append([*head, *["–"] * 7, said])
            continue
        rows.append(
            head
            + [_rate(point[k], 2) for k in ("sensitivity", "specificity")]
            + [_rate(point["flags_per_100"], 1)]
            + [f"{point[k]:,}" for k in ("tp", "fp", "tn", "fn")]
            + [said]
        )
    headers = ["Class", "Threshold", "Sensitivity", "Specificity", "Flags\nper 100"]
    headers += ["TP", "FP", "TN", "FN", "Remark"]
    text = (9,)
    if not any(row[-1] for row in rows):
        headers, rows, text = headers[:-1], [row[:-1] for row in rows], ()
    caption = "In-sample." if block["in_sample"] else ""
    return html.table(headers, rows, caption=caption, text=text)


def _values_table(chosen: Mapping[str, Block]) -> str:
    names = {"ppv": "PPV", "npv": "NPV", "lr_positive": "LR+", "lr_negative": "LR−"}
    names |= {"f1": "F1"}
    rows = []
    for name, point in chosen.items():
        if point["threshold"] is None:
            continue
        share = f"{100 * point['positives'] / point['n']:.1f}%" if point["n"] else "–"
        digits = {"npv": 3, "lr_positive": 1}
        cells = [_rate(point[k], digits.get(k, 2)) for k in names]
        rows.append([words(name), share, *cells])
    if not rows:
        return ""
    return html.table(["Class", "Prevalence", *names.values()], rows)


def _rate(block: Block, digits: int) -> str:
    """``0.76 [0.69, 0.84]``; an open end is infinite."""
    if block["value"] is None:
        return "undefined"
    text = number(block["value"], digits)
    if block["low"] is None:
        return text
    open_end = block["high"] is None
    high = "∞" if open_end else number(block["high"], digits)
    return f"{text} [{number(block['low'], digits)}, {high}]"


def _predictive(block: Block) -> list[str]:
    """PPV and NPV of the classes with most positive patients, against prevalence."""
    found = {
        name: points["youden"]
        for name, points in (block.get("per_class") or {}).items()
        if points["youden"]["threshold"] is not None
    }
    order = sorted(found, key=lambda n: -found[n]["positive_patients"])
    names = [n for n in found if n in order[:SHOWN_PREVALENCES]]
    if not names:
        return []
    grid = np.asarray(block["prevalences"])

    def panel(ax: Axes, name: str) -> None:
        point = found[name]
        for key, color in (("ppv", BLUE), ("npv", ORANGE)):
            at = {k: _floats(v) for k, v in point["at_prevalence"].items()}
            ax.plot(grid, at[key], color=color, lw=1.3, label=key.upper())
            if f"{key}_low" in at:
                ends = at[f"{key}_low"], at[f"{key}_high"]
                ax.fill_between(grid, *ends, color=color, alpha=0.18, lw=0)
        own = point["positives"] / point["n"]
        ax.axvline(own, color=INK, lw=0.8, ls=":", label="these films")
        ax.set(xscale="log", xlim=(grid[0], grid[-1]), ylim=(0, 1.02))
        ax.set_xticks([0.001, 0.01, 0.1], ["0.1%", "1%", "10%"])
        ax.set_xticks([], minor=True)
        ax.grid(color=GRID, lw=0.5)

    drawing = figures.grid(
        names, panel, x="prevalence", y="predictive value", legend=True
    )
    caption = (
        "What a call, or its absence, means where the finding is rarer or more frequent:"
        " predictive values at the Youden point, if sensitivity and specificity hold"
        f" there. Bands: 95%. The {len(names)} classes with most positive patients."
    )
    return [
        html.heading("Predictive values at other prevalences", level=3),
        html.figure(drawing, caption, alt="PPV and NPV against prevalence"),
    ]


def _platt(result: Block, platt: Block) -> list[str]:
    """Scalings, what they mend, and reliability before and after."""
    per_class = platt.get("per_class") or {}
    if not per_class:
        return []
    raw = result["calibration"].get("per_class", {})
    parts = [
        html.heading("Calibrated probabilities", level=3),
        html.paragraph(
            "Shown probabilities are σ(slope · logit(score) + intercept), fitted per class"
            " on the validation films at their own prevalence, which stands beside them."
            " With fewer than 20 positive patients a score stays a score, uncalibrated."
        ),
        _platt_table(raw, per_class),
        _platt_remarks(per_class),
    ]
    if raw and any(block.get("calibrated") for block in per_class.values()):
        caption = (
            "Reliability against the labels, before and after scaling, in at most 15 bins"
            " of equal mass; axes end at the largest bin. On the diagonal, a probability"
            " means what it says."
        )
        drawing = _reliability(raw, per_class)
        parts.append(html.figure(drawing, caption, alt="reliability before and after"))
    return parts


def _platt_table(raw: Mapping[str, Block], per_class: Mapping[str, Block]) -> str:
    rows = []
    for name, block in per_class.items():
        before, after = raw.get(name, {}), block.get("calibrated") or {}
        share = block.get("prevalence")
        mark = " *" if block["reason"] else " †" if block.get("smoothed") else ""
        rows.append(
            [
                words(name) + mark,
                number(block.get("slope"), 2),
                number(block.get("intercept"), 2),
                "–" if share is None else f"{100 * share:.1f}%",
                _between(block["raw"], "slope"),
                _between(after, "slope"),
                number(before.get("ece")),
                number(after.get("ece")),
                number(before.get("brier_skill")),
                number(after.get("brier_skill")),
            ]
        )
    headers = ["Class", "Slope", "Inter-\ncept", "Prevalence\nof the fit"]
    headers += ["Measured slope,\nscores", "Measured slope,\nprobabilities"]
    headers += ["ECE,\nscores", "ECE,\nprob.", "Brier skill,\nscores"]
    headers += ["Brier skill,\nprob."]
    caption = (
        "Slope 1 is right; below 1, too extreme. Intervals: robust standard errors over"
        " patients. Brier skill 0: no better than the prevalence itself."
    )
    # Without scalings only the scores' own columns say anything.
    told = [k for k in range(len(headers)) if any(row[k] != "–" for row in rows)]
    headers, *rows = ([row[k] for k in told] for row in (headers, *rows))
    return html.table(headers, rows, caption=caption)


def _platt_remarks(per_class: Mapping[str, Block]) -> str:
    reasons: dict[str, list[str]] = {}
    for name, block in per_class.items():
        if block["reason"]:
            reasons.setdefault(block["reason"], []).append(words(name))
    said = [
        f"* {'All' if len(names) == len(per_class) else ', '.join(names)}: {reason}."
        for reason, names in reasons.items()
    ]
    if smoothed := [words(n) for n, b in per_class.items() if b.get("smoothed")]:
        said.append(
            f"† {', '.join(smoothed)}: labels separable on validation, so Platt's smoothed"
            " targets were used."
        )
    return html.paragraph(" ".join(said), kind="note") if said else ""


def _between(block: Block, name: str) -> str:
    shown = {"value": block.get(name), "low": block.get(f"{name}_low")}
    shown["high"] = block.get(f"{name}_high")
    return "–" if shown["value"] is None else tables.interval(shown, 2)


def _reliability(raw: Mapping[str, Block], platt: Mapping[str, Block]) -> bytes:
    def panel(ax: Axes, name: str) -> None:
        curves = [(raw.get(name, {}), ORANGE, "scores")]
        curves.append((platt[name].get("calibrated") or {}, BLUE, "probabilities"))
        known = [(b["reliability"], *rest) for b, *rest in curves if "reliability" in b]
        ends = [max(*c["confidence"], *c["frequency"]) for c, *_ in known]
        top = min(1.12 * max(ends, default=1.0), 1.02)
        ax.plot([0, top], [0, top], color=GRID, lw=0.8)
        for curve, color, label in known:
            x, y = curve["confidence"], curve["frequency"]
            ax.plot(x, y, "o-", color=color, ms=2, lw=1, label=label)
        if platt[name].get("calibrated") is None:
            ax.text(0.04 * top, 0.9 * top, "uncalibrated", color=FAINT, size=7)
        ax.set(xlim=(0, top), ylim=(0, top))
        ax.locator_params(nbins=3)

    # A class with both curves comes first, so that the legend has both.
    names = sorted(platt, key=lambda n: platt[n].get("calibrated") is None)
    x, y = "score or probability", "observed frequency"
    return figures.grid(names, panel, x=x, y=y, legend=True)


def _decisions(block: Block) -> list[str]:
    """Net benefit of the classes that have probabilities."""
    curves = block.get("decision_curves") or {}
    known = {n: b for n, b in curves.get("per_class", {}).items() if not b["reason"]}
    if not known:
        return []
    grid = np.asarray(curves["threshold_probabilities"])

    def panel(ax: Axes, name: str) -> None:
        _decision(ax, grid, known[name])

    drawing = figures.grid(
        list(known), panel, x="threshold probability", y="net benefit", legend=True
    )
    left = [words(n) for n in curves["per_class"] if n not in known]
    caption = (
        "Decision curves on calibrated probabilities: true positives per film, less false"
        " ones weighted by the odds of the threshold probability, against calling every"
        " film and calling none. Bands: 95%."
    )
    if left:
        caption += f" Uncalibrated, and so left out: {', '.join(left)}."
    return [
        html.heading("Decision curves", level=3),
        html.figure(drawing, caption, alt="net benefit against threshold probability"),
    ]


def _decision(ax: Axes, grid: np.ndarray, block: Block) -> None:
    model, treat_all = _floats(block["model"]), _floats(block["treat_all"])
    ax.axhline(0, color=INK, lw=0.8, label="call none")
    ax.plot(grid, treat_all, color=FAINT, lw=0.9, ls="--", label="call all")
    ax.plot(grid, model, color=BLUE, lw=1.3, label="model")
    top = np.nanmax([*model, *treat_all, 1e-4])
    if block["low"] is not None:
        low, high = _floats(block["low"]), _floats(block["high"])
        ax.fill_between(grid, low, high, color=BLUE, alpha=0.18, lw=0)
        top = max(top, np.nanmax(high))
    ax.set(xlim=(0, grid[-1]), ylim=(-0.25 * top, 1.08 * top))
    ax.locator_params(nbins=3)


def _floats(values: Sequence[float | None]) -> np.ndarray:
    """Numbers of JSON, None as NaN."""
    return np.array([math.nan if v is None else v for v in values])
