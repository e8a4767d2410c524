"""The worklist: studies in order of suspicion, and what stands below its threshold.

What is below is called "below threshold" and nothing else: some of it is abnormal.
"""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from cxr_jax.pages import figures, html, tables
from cxr_jax.pages.evidence import Evidence
from cxr_jax.predictions import RESEARCH_USE

Block = Mapping[str, Any]

FIRST, MOST = 25, 200  # rows that are seen at once, and with those that are folded
BELOW = "Below the threshold; this is not the same as normal."
DRAFT = (
    "DRAFT, not reviewed.\n"
    "Study: {study}\n"
    "{kind}"
    "Score: {score}, threshold of the worklist: {threshold}.\n"
    f"{BELOW}\n"
    "A reader has yet to look at every view. The score knows these views alone: no prior\n"
    "films, no history.\n"
    f"{RESEARCH_USE}"
)


def section(evidence: Evidence) -> str:
    """The section of the report; empty where no worklist was made."""
    block = evidence.main.get("triage")
    if not block:
        return ""
    points = evidence.main.get("operating_points") or {}
    return html.section(
        "Worklist",
        html.paragraph(RESEARCH_USE, kind="banner"),
        html.paragraph(_about(block, evidence.main["split"])),
        html.paragraph(_cut(block, in_sample=bool(points.get("in_sample")))),
        _measures(block),
        _drawing(block),
        *_list(block),
        *_drafts(block),
    )


def draft(entry: Block, threshold: float) -> str:
    """The text that would await a reader of a study below the threshold.

    Args:
        entry: of the worklist: ``id``, ``category`` (may be empty) and ``score``.
        threshold: that the score is below.
    """
    kind = f"Type: {tables.words(entry['category'])}\n" if entry["category"] else ""
    return DRAFT.format(
        study=entry["id"],
        kind=kind,
        score=tables.number(entry["score"], 4),
        threshold=tables.number(threshold, 4),
    )


def found_by(entries: Sequence[Block]) -> tuple[np.ndarray, np.ndarray]:
    """Share of the abnormal studies found against share of the list read.

    Studies of equal scores may come in any order: between them the line is straight.
    The area below it is ``1 - (mean rank of abnormal studies - 1/2) / n``.

    Args:
        entries: by falling score; at least one is labelled 1.

    Returns:
        Rising shares of the list and of the abnormal studies, from 0 to 1.
    """
    scores = np.array([entry["score"] for entry in entries])
    hits = np.cumsum([entry["label"] == 1 for entry in entries])
    ends = np.append(np.flatnonzero(np.diff(scores)), len(scores) - 1)
    read = np.append(0, ends + 1) / len(scores)
    return read, np.append(0, hits[ends]) / hits[-1]


def _about(block: Block, part: str) -> str:
    return (
        f"The {block['n']:,} studies of the {part} part in order of their scores, the most"
        f" suspicious first. By the labels {block['positives']:,} are abnormal and"
        f" {block['negatives']:,} are not. The scores are as the model gives them, not"
        " probabilities."
    )


def _cut(block: Block, *, in_sample: bool) -> str:
    """Where the list is cut, and what that leaves below, in words."""
    if block["threshold"] is None:
        return f"The list is not cut, for want of a threshold: {block['reason']}."
    missed = block["missed"]
    text = (
        f"It is cut at the operating point '{block['point']}', frozen on the validation"
        " part: above are the studies with a score of at least"
        f" {tables.number(block['threshold'], 4)}."
    )
    if in_sample:
        text += " IN-SAMPLE: the threshold was chosen on these very studies."
    if not missed["below"]:
        return f"{text} No labelled study is below it."
    verb = "is" if missed["count"] == 1 else "are"
    return (
        f"{text} Below are {missed['below']:,} studies with a label, and"
        f" {missed['count']:,} of them {verb} abnormal. Were nobody to read what is below,"
        " these would be missed."
    )


def _measures(block: Block) -> str:
    rank, rows = block["rank"], []
    if missed := block.get("missed"):
        # The negatives below are those below that are not missed.
        ruled_out = missed["below"] - missed["count"]
        rows.append(
            [
                "Studies reported as not abnormal that are below threshold",
                _share(block["ruled_out"]) if block["negatives"] else "–",
                f"{ruled_out:,} of {block['negatives']:,}{_between(block)}",
            ]
        )
        upper = "–" if missed["upper"] is None else _share(missed["upper"])
        below = missed["count"] / missed["below"] if missed["below"] else None
        rows += [
            [
                "Abnormal studies that are below threshold (missed)",
                f"{missed['count']:,}",
                f"of {block['positives']:,} abnormal ones",
            ],
            [
                "Share of abnormal ones among the studies below",
                "–" if below is None else _share(below),
                f"at most {upper}" if missed["below"] else "none is below",
            ],
        ]
    if rank["mean"] is not None:
        chance, best = (tables.number(rank[k], 1) for k in ("chance", "best"))
        beside = f"by chance {chance}, in a perfect list {best}"
        name = "Mean rank of abnormal studies"
        rows.append([name, tables.number(rank["mean"], 1), beside])
    caption = "Rank 1 is the head of the list. Range of the share: its 95% interval, patients resampled."
    if block.get("missed"):
        caption += (
            " At most: upper end of the exact one-sided 95% interval, studies taken as"
            " independent."
        )
    return html.table(["", "Value", ""], rows, caption=caption, text=(2,))


def _drawing(block: Block) -> str:
    entries, positives = block["list"], block["positives"]
    if not positives:
        return ""
    read, found = found_by(entries)
    best = positives / len(entries)
    quarter = float(np.interp(0.25, read, found))
    ideal = min(0.25 / best, 1.0)
    cut = None
    if block["threshold"] is not None:
        cut = sum(bool(entry["above"]) for entry in entries) / len(entries)

    def draw() -> Figure:
        figure = Figure(figsize=(0.62 * figures.WIDTH, 3.3), layout="constrained")
        axes = figure.subplots()
        axes.plot([0, 1], [0, 1], color=figures.FAINT, lw=0.9, ls="--", label="chance")
        style: dict[str, Any] = {"color": figures.ORANGE, "lw": 1.1}
        axes.plot([0, best, 1], [0, 1, 1], label="a perfect list", **style)
        axes.plot(read, found, color=figures.BLUE, lw=1.7, label="this list")
        axes.fill_between(read, found, read, color=figures.BLUE, alpha=0.08, lw=0)
        if cut is not None:
            axes.axvline(cut, color=figures.INK, lw=0.8, ls=":", label="threshold")
        axes.set(xlim=(0, 1), ylim=(0, 1.01))
        axes.set_xlabel("share of the worklist read")
        axes.set_ylabel("share of abnormal studies found")
        axes.grid(color=figures.GRID, lw=0.5)
        axes.set_axisbelow(True)
        axes.legend(loc="lower right")
        return figure

    return html.figure(
        figures.svg(draw),
        f"Reading the first quarter of the list finds {_share(quarter)} of the abnormal"
        f" studies; by chance 25.0%, in a perfect list {_share(ideal)}.",
        alt="share of abnormal studies found against share of the worklist read",
    )


def _list(block: Block) -> list[str]:
    entries = block["list"]
    shown = min(len(entries), MOST)
    parts = [
        html.heading("The list", level=3),
        _table(entries[:FIRST], start=1),
    ]
    if shown > FIRST:
        parts.append(
            html.folded(
                f"Positions {FIRST + 1} to {shown:,}",
                _table(entries[FIRST:shown], start=FIRST + 1),
            )
        )
    if shown < len(entries):
        parts.append(
            html.paragraph(
                f"The first {shown:,} of {len(entries):,}; all are in result.json.",
                kind="note",
            )
        )
    return parts


def _table(entries: Sequence[Block], *, start: int) -> str:
    labels = {1: "reported: abnormal", 0: "reported: not abnormal", None: "no label"}
    sides = {True: "above threshold", False: "below threshold", None: "no threshold"}
    rows = [
        [
            f"{position:,}",
            entry["id"],
            tables.words(entry["category"]) or "–",
            tables.number(entry["score"], 4),
            sides[entry["above"]],
            labels[entry["label"]],
        ]
        for position, entry in enumerate(entries, start)
    ]
    head = ["Position", "Study", "Type", "Score", "", "Label"]
    return html.table(head, rows, text=(1, 2, 4, 5))


def _drafts(block: Block) -> list[str]:
    """One draft in full, of the study next below the threshold, and the others folded."""
    threshold = block["threshold"]
    below = [entry for entry in block["list"] if entry["above"] is False]
    if threshold is None or not below:
        return []
    first, *others = [draft(entry, threshold) for entry in below[:MOST]]
    parts = [
        html.heading("Draft reports of the studies below the threshold", level=3),
        html.paragraph(
            "One template, filled in; nothing in it was seen by a reader. The study next"
            " below the threshold:"
        ),
        f"<pre>{escape(first)}</pre>",
    ]
    if others:
        which = f"The next {len(others):,} of {len(below):,} drafts"
        parts.append(html.details(which, "\n\n".join(others)))
    return parts


def _between(block: Mapping[str, Any]) -> str:
    """The 95% interval of the share ruled out, over patients."""
    low, high = block.get("ruled_out_low"), block.get("ruled_out_high")
    return "" if low is None else f"; {_share(low)} to {_share(high)}"


def _share(value: float) -> str:
    return f"{100 * value:.1f}%"
