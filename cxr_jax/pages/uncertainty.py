"""What the spread over dropout masks is worth: flags, coverage and risk, single findings."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from cxr_jax.pages import html, tables, uncertainty_figures
from cxr_jax.pages.evidence import Evidence
from cxr_jax.passes import Passes
from cxr_jax.predictions import SPREAD

Block = Mapping[str, Any]

RISKS = {"brier": "Brier score", "log_loss": "log-loss"}
MEASURES = {
    "std": "std",
    "information": "mutual\ninformation",
    "max_probability": "maximum\nprobability",
    "random": "random",
    "oracle": "oracle",
}


def section(evidence: Evidence) -> str:
    """The section of the report; empty where no spread was evaluated."""
    block = evidence.main.get("uncertainty")
    if not block:
        return ""
    parts = [
        html.paragraph(f"Uncertainty is here the {SPREAD}.", kind="banner"),
        html.paragraph(_about(block, evidence)),
        _flags(block),
    ]
    if block["mean"]["classes"]:
        parts += _selection(block)
    parts += _findings(evidence)
    return html.section("Uncertainty", *parts)


def _about(block: Block, evidence: Evidence) -> str:
    asked = (evidence.config.get("eval") or {}).get("mc") or {}
    how = f" over {asked['samples']} passes" if asked.get("samples") else ""
    bar = f"{block['threshold']:g}"
    share = 100 * block["films_flagged"] / block["n"] if block["n"] else 0.0
    return (
        f"Standard deviation of the probability{how}, each with a dropout mask that all"
        f" films share. A finding is flagged where it is above {bar}:"
        f" {block['films_flagged']:,} of {block['n']:,} films ({share:.1f}%) have such a"
        f" finding. The mean over all films and classes is {block['mean_std']:.4f}."
        " Errors and losses below are against the labels."
    )


def _flags(block: Block) -> str:
    """Flagged findings beside the others, per class."""
    rows = []
    for name, one in block["per_class"].items():
        sides = [one["flagged"], one["unflagged"]]
        rows.append(
            [
                tables.words(name),
                tables.number(one["mean_std"], 4),
                tables.number(one["mean_entropy"], 4),
                tables.number(one["mean_information"], 5),
                f"{one['flagged']['n']:,} ({100 * one['share_flagged']:.1f}%)",
                *(_percent(side["prevalence"]) for side in sides),
                *(_percent(side["error"]) for side in sides),
                *(tables.number(side["brier"], 4) for side in sides),
            ]
        )
    headers = ["Class", "Mean\nstd", "Mean\nentropy", "Mean mutual\ninformation"]
    headers += ["Flagged"]
    for what in ("Prevalence", "Wrong calls", "Brier"):
        headers += [f"{what},\nflagged", f"{what},\nothers"]
    return html.table(
        headers,
        rows,
        caption="Entropy and mutual information in nats. Calls are made at Youden's"
        " point, frozen on the validation part, or at 0.5 where none was. A dash: no film"
        " with a label.",
    )


def _selection(block: Block) -> list[str]:
    """Coverage and risk: the figure of the mean, areas, and each class folded away."""
    shown = {
        name: block["per_class"][name]
        for name in block["per_class"]
        if "area" in block["per_class"][name]
    }
    listed = [shown[name] for name in block["mean"]["classes"]]
    coverages = np.asarray(block["coverages"])
    mean = uncertainty_figures.means(coverages, listed)
    grids = [
        html.figure(
            uncertainty_figures.per_class(coverages, shown, what),
            f"{words} of the films kept, against coverage.",
            alt=f"{words} against coverage, per class",
        )
        for what, words in (
            ("brier", "Brier score"),
            ("prevalence", "Share of positives"),
        )
    ]
    return [
        html.heading("Putting uncertain films aside", level=3),
        html.paragraph(
            "Films are kept in rising order of an uncertainty, class by class: coverage"
            " is the share kept, risk their mean loss. Maximum probability puts aside"
            " what is nearest to 0.5 (the entropy of the probability gives the same"
            " order); random rejection changes nothing in the mean; the oracle knows the"
            " losses. What is kept may hold fewer positives: a risk that falls only"
            " because positives were put aside is no gain."
        ),
        html.figure(
            mean,
            "Left the Brier score of the films kept, mean over the classes of the list;"
            " right their share of positives, relative to that of all films.",
            alt="risk and retained prevalence against coverage",
        ),
        _areas(block, "brier"),
        html.folded(
            "Log-loss, and further differences",
            _areas(block, "log_loss"),
            _further(block),
        ),
        html.folded("Curves of each class", *grids),
    ]


def _areas(block: Block, risk: str) -> str:
    """Areas under the risk, and the difference that matters with its interval."""
    found = {k: one for k, one in block["per_class"].items() if one.get("area")}
    rows = [_area_row(tables.words(name), one, risk) for name, one in found.items()]
    rows.append(_area_row(tables.MEAN, block["mean"], risk))
    caption = (
        f"Area under the {RISKS[risk]} of the films kept, in thousandths; smaller is"
        " better. Below 0, std puts the right films aside more often. 95% intervals, each"
        f" for itself; resampling unit: {block['resampling_unit']}; verdicts after Holm's"
        " correction over the classes, the mean by itself."
    )
    if left := block["mean"]["left_out"]:
        caption += f" Left out: {'; '.join(f'{k} ({v})' for k, v in left.items())}."
    if many := max(gap["discarded"] for gap in block["mean"]["differences"][risk]):
        caption += f" {many:,} resamples discarded for the mean."
    headers = ["Class", *MEASURES.values(), "std −\nmaximum probability", "Verdict"]
    return html.table(
        headers, rows, caption=caption, total=True, text=(len(headers) - 1,)
    )


def _area_row(name: str, one: Block, risk: str) -> list[str]:
    chosen = one["differences"][risk][0]
    return [
        name,
        *(_thousandths(one["area"][risk][measure]) for measure in MEASURES),
        _gap(chosen),
        chosen["verdict"],
    ]


def _further(block: Block) -> str:
    """The other differences of the mean over the list."""
    rows = []
    for risk, words in RISKS.items():
        for gap in block["mean"]["differences"][risk]:
            pair = (MEASURES[gap[key]].replace("\n", " ") for key in ("of", "minus"))
            rows.append([words, " − ".join(pair), _gap(gap), gap["verdict"]])
    return html.table(
        ["Risk", "Difference", "Of the means of the list", "Verdict"],
        rows,
        caption="Areas in thousandths, with 95% intervals, each for itself.",
        text=(1, 3),
    )


def _findings(evidence: Evidence) -> list[str]:
    """Histograms of single findings over their passes."""
    if evidence.passes is None:
        return []
    passes = evidence.passes
    return [
        html.heading("Single findings, pass by pass", level=3),
        html.paragraph(
            "Chosen by rule among all films and classes with a label: the largest"
            " spread, the median spread, and the smallest spread of a finding that a"
            " call at 0.5 gets wrong. The passes of the first column are the first ones"
            " of the second. "
            + "; ".join(_shown(passes, k) for k in range(len(passes.ids)))
            + "."
        ),
        html.figure(
            uncertainty_figures.histograms(passes),
            "Probabilities over the passes; line: their mean, band: one standard"
            " deviation to either side. Each finding has its own scale.",
            alt="histograms of probabilities over dropout masks",
        ),
    ]


def _shown(passes: Passes, k: int) -> str:
    label = passes.labels[k]
    word = {True: "positive", False: "negative"}[bool(label == 1)]
    return (
        f"{tables.words(str(passes.classes[k]))} of {passes.ids[k]}"
        f" ({passes.kinds[k]}; labelled {word})"
    )


def _thousandths(value: float) -> str:
    return tables.number(1000 * value, 2)


def _gap(gap: Block) -> str:
    scaled = {
        key: None if gap[key] is None else 1000 * gap[key]
        for key in ("value", "low", "high")
    }
    text = f"{scaled['value']:+.2f}"
    if scaled["low"] is not None:
        text += f" [{scaled['low']:+.2f}, {scaled['high']:+.2f}]"
    return text.replace("-", "−")


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}%"
