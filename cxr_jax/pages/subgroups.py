"""Subgroups: a table of all, and the gaps between them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cxr_jax.pages import figures, html
from cxr_jax.pages.evidence import Evidence
from cxr_jax.pages.figures import BLUE, FAINT, GRID, INK, ORANGE
from cxr_jax.pages.tables import interval, number, words

MISSED = "falsely_no_finding"
TITLES = {
    "auroc": "AUROC",
    "tpr": "True positive rate",
    "fpr": "False positive rate",
    "calibration": "Probability − frequency",
    MISSED: "Falsely no finding",
}
MOST_CLASS_GAPS = 20  # single-class gaps beyond chance that are listed

Block = Mapping[str, Any]


def section(evidence: Evidence) -> str:
    """Figures of each subgroup and gaps between them; "" where none is known."""
    block = evidence.main.get("subgroups")
    if not block:
        return ""
    return html.section(
        "Subgroups",
        html.paragraph(_origin(block, evidence.main["split"])),
        _gap_figure(block),
        html.paragraph(_multiplicity(block)),
        _class_gaps(block),
        html.heading("Each group", level=3),
        _group_table(block),
        html.paragraph(_legend(block), kind="note"),
        html.folded("Each class", _class_table(block)),
    )


def _origin(block: Block, part: str) -> str:
    against = {"truth": "the true state", "labels": "the labels"}[block["reference"]]
    text = f"Judged against {against}, on the {part} part."
    if block["reason"]:
        return f"{text} Ranking only: {block['reason']}."
    text += (
        f" Films are called at the thresholds frozen on validation"
        f" ({block['operating_point']})."
    )
    if block["in_sample"]:
        text += " IN-SAMPLE: the thresholds were chosen on these very films."
    if block["never_called"]:
        never = ", ".join(words(name) for name in block["never_called"])
        text += f" Never called, for want of a threshold: {never}."
    return text


def _gap_figure(block: Block) -> str:
    """A forest of the gaps of means, one panel a measure."""
    gaps = block["gaps"]
    if not any(g["mean"][n]["value"] is not None for g in gaps for n in TITLES):
        return ""
    shown = [n for n in TITLES if any(g["mean"][n]["value"] is not None for g in gaps)]

    def draw() -> Figure:
        height = 0.9 + 0.235 * len(gaps)
        figure = Figure(figsize=(figures.WIDTH, height), layout="constrained")
        panels = np.atleast_1d(figure.subplots(1, len(shown), sharey=True))
        for ax, name in zip(panels, shown, strict=True):
            _forest(ax, [g["mean"][name] for g in gaps])
            ax.set_title(TITLES[name])
        labels = [_gap_name(g["name"]) for g in gaps]
        panels[0].set_yticks(-np.arange(len(gaps), dtype=float), labels)
        panels[0].set_ylim(-len(gaps) + 0.4, 0.6)
        panels[-1].plot([], [], "o", color=ORANGE, ms=4, label="beyond chance")
        panels[-1].plot([], [], "o", color=BLUE, ms=4, label="not beyond chance")
        figure.legend(loc="outside upper right", ncols=2)
        return figure

    counted = "; the last panel counts films" if MISSED in shown else ""
    caption = (
        "Gaps between groups: the mean over the classes of the list that neither group"
        f" lacks{counted}. Each line is a 95% interval of its own."
        " Orange: beyond chance after Holm's correction over all gaps shown. ×: suppressed"
        " or undefined in one of both."
    )
    return html.figure(
        figures.svg(draw), caption, alt="gaps between subgroups, with intervals"
    )


def _forest(ax: Axes, gaps: Sequence[Block]) -> None:
    ax.axvline(0, color=INK, lw=0.8)
    for y, gap in enumerate(gaps):
        if gap["value"] is None:
            ax.plot(0, -y, "x", color=FAINT, ms=4)
            continue
        color = ORANGE if gap["beyond_chance"] else BLUE
        if gap["low"] is not None:
            ax.hlines(-y, gap["low"], gap["high"], color=color, lw=1.4, alpha=0.6)
        ax.plot(gap["value"], -y, "o", color=color, ms=3.5)
    reach = max(
        [abs(g[k]) for g in gaps for k in ("value", "low", "high") if g.get(k)],
        default=0.05,
    )
    reach = min(1.08 * reach, 1.0)
    ax.set_xlim(-reach, reach)
    ax.locator_params(axis="x", nbins=3)
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="x", color=GRID, lw=0.5)
    ax.set_axisbelow(True)
    ax.spines["left"].set_visible(False)


def _gap_name(name: str) -> str:
    """``sex: F − M, view AP``."""
    axis, _, rest = name.partition(": ")
    return f"{words(axis)}: {rest.replace(' - ', ' − ').replace('=', ' ')}"


def _multiplicity(block: Block) -> str:
    said = []
    for name, what in (("mean", "gaps of means"), ("per_class", "gaps of one class")):
        family = block["multiplicity"][name]
        said.append(
            f"Of {family['gaps']:,} {what}, {family['intervals_without_0']:,} intervals"
            f" leave out 0, where chance alone would leave it out"
            f" {family['expected_by_chance']:g} times; beyond chance after correction:"
            f" {family['beyond_chance']:,}."
        )
    method = block["multiplicity"]["mean"]["method"]
    return f"{' '.join(said)} Correction: {method}. No gap beyond chance is not proof of none."


def _class_gaps(block: Block) -> str:
    """Single classes whose gap is beyond chance, the surest first."""
    found = [
        (gap["p_holm"], _gap_name(g["name"]), words(name), TITLES[measure], gap)
        for g in block["gaps"]
        for name, measures in g["per_class"].items()
        for measure, gap in measures.items()
        if gap.get("beyond_chance")
    ]
    found.sort(key=lambda row: row[:4])
    rows = [
        [name, contrast, measure, interval(gap), _p(p)]
        for p, contrast, name, measure, gap in found[:MOST_CLASS_GAPS]
    ]
    if not rows:
        return ""
    caption = "Gaps of single classes beyond chance."
    if len(found) > len(rows):
        caption = f"{caption} The first {len(rows)} of {len(found)}."
    headers = ["Class", "Gap", "Of", "Value", "p, corrected"]
    return html.table(headers, rows, caption=caption, text=(1, 2))


def _group_table(block: Block) -> str:
    """One line a group: films, patients, films missed altogether, mean figures."""
    rows = []
    for name, group in block["groups"].items():
        missed = group[MISSED]
        shown = [b for b in group["per_class"].values() if "auroc" in b]
        cells = [_mean(shown, k) for k in ("auroc", "tpr", "fpr", "calibration", "ece")]
        rows.append(
            [
                _group_name(name),
                f"{group['films']:,}",
                f"{group['patients']:,}",
                f"{len(shown)} of {len(group['per_class'])}",
                *cells,
                "–" if missed["value"] is None else interval(missed),
            ]
        )
    headers = ["Group", "Films", "Patients", "Classes\nshown", "AUROC", "TPR", "FPR"]
    headers += ["Probability\n− frequency", "ECE", "Falsely\nno finding"]
    return html.table(headers, rows)


def _group_name(name: str) -> str:
    """``sex F · view PA``, kept on one line."""
    text = name.replace("_", " ").replace("=", " ").replace(", ", " · ")
    return text.replace(" ", "\N{NO-BREAK SPACE}")


def _mean(blocks: Sequence[Block], name: str) -> str:
    """Over the classes of this very group: no two lines need have the same."""
    values = [
        b[name]["value"] if isinstance(b[name], dict) else b[name] for b in blocks
    ]
    known = [v for v in values if v is not None]
    return number(sum(known) / len(known)) if known else "–"


def _legend(block: Block) -> str:
    axes = "; ".join(
        f"{words(name)}: {', '.join(axis['levels'])}"
        for name, axis in block["axes"].items()
    )
    return (
        f"Levels: {axes}. Age in {block['age_bands']}. A class with fewer than 10 positive"
        " patients in a group is suppressed there; figures that need negative films, also"
        " with fewer than 10 negative ones. Means run over the classes shown in that very"
        " line, so lines with other classes do not compare; the gaps above do. ECE grows"
        " as films become fewer. Falsely no finding: of films with a finding, the share"
        " of which no class is called."
    )


def _class_table(block: Block) -> str:
    """Single classes by the levels of each axis; intersections are in result.json."""
    single = {
        name: group
        for name, group in block["groups"].items()
        if len(group["levels"]) < 2
    }
    classes = next(iter(single.values()))["per_class"]
    rows = []
    for name in classes:
        for group, found in single.items():
            one = found["per_class"][name]
            cells = [f"{one['positives']:,}", f"{one['positive_patients']:,}"]
            if "auroc" in one:
                cells += [_cell(one[k]) for k in ("auroc", "tpr", "fpr", "calibration")]
            else:
                cells += ["suppressed"] + ["–"] * 3
            first = words(name) if group == next(iter(single)) else ""
            rows.append([first, _group_name(group), *cells])
    headers = ["Class", "Group", "Positive\nfilms", "Positive\npatients", "AUROC"]
    headers += ["TPR", "FPR", "Probability − frequency"]
    caption = (
        "95% intervals in brackets, not corrected for their number; resampling unit:"
        f" {block['resampling_unit']}. Intersections are in result.json."
    )
    return html.table(headers, rows, caption=caption, text=(1,))


def _cell(block: Block) -> str:
    if block["value"] is None:
        return "–"
    # Rounded first: a minus before 0.00 says nothing.
    ends = {k: block[k] for k in ("value", "low", "high")}
    return interval({k: v and round(v, 2) + 0.0 for k, v in ends.items()}, 2)


def _p(value: float) -> str:
    return "< 0.0001" if value < 0.0001 else number(value, 4)
