"""Where the maps point, beside what chance reaches."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from cxr_jax.pages import figures, html, tables
from cxr_jax.pages.evidence import Evidence

NAMES = {
    "area": "area chance",
    "location": "usual place",
    "randomised": "random weights",
}
MARKS = {
    "area": ("s", figures.FAINT),
    "location": ("D", figures.ORANGE),
    "randomised": ("v", figures.INK),
}
KINDS = {"grad_cam": "Grad-CAM", "cam": "class activation map"}


def section(evidence: Evidence) -> str:
    """Pointing game, IoU and energy per class; nothing where none was measured."""
    block = evidence.main.get("localization")
    if not block:
        return ""
    per_class = block["per_class"]
    shown = {k: v for k, v in per_class.items() if v["pointing"]["value"] is not None}
    parts = [html.paragraph(_words(block, evidence))]
    if shown:
        parts.append(_drawing(shown))
        parts.append(_pointing_table(shown))
        parts.append(_difference_table(shown, block))
        parts.append(_extent_table(shown, block))
    if missing := [tables.words(name) for name in per_class if name not in shown]:
        parts.append(
            html.paragraph(f"No film has a box of: {', '.join(missing)}.", kind="note")
        )
    return html.section("Where the maps point", *parts)


def _words(block: Mapping[str, Any], evidence: Evidence) -> str:
    task = evidence.config.get("task") or {}
    kind = KINDS.get(task.get("maps") or "cam", "map")
    ahead, known = block["ahead_of_all"]["classes"], block["ahead_of_all"]["of"]
    listed = f" ({', '.join(map(tables.words, ahead))})" if ahead else ""
    better = (
        f"{len(ahead or ())} of {len(known)} boxed classes{listed} point better than"
    )
    rule = " Better means that the interval of the difference excludes 0."
    if ahead is None:
        better, rule = "There is no interval to say which classes point better than", ""
    return (
        f"The pointing game: does the peak of a class's {kind} lie in a reference box of"
        f" that class? {better} all three kinds of chance: the share of the film that the"
        " boxes cover, the mean place of the class on the validation part, and the same"
        f" map of a network with random weights.{rule} {block['films']:,} of"
        f" {block['n']:,} films have a box; a film counts whatever its score."
    )


def _drawing(shown: Mapping[str, Mapping[str, Any]]) -> str:
    rows = {name: block["pointing"] for name, block in shown.items()}
    return html.figure(
        _against_chance(rows),
        "Share of films on which the peak lies in a box, with its 95% interval; hollow"
        " marks are what chance reaches.",
        alt="pointing accuracy of each class beside three baselines",
    )


def _against_chance(rows: Mapping[str, Mapping[str, Any]]) -> bytes:
    """One class a line: the map's accuracy, and what it has to beat."""

    def draw() -> Figure:
        height = 0.8 + 0.3 * len(rows)
        figure = Figure(figsize=(figures.WIDTH, height), layout="constrained")
        axes = figure.subplots()
        y = -np.arange(len(rows), dtype=float)
        for name, (mark, color) in MARKS.items():
            found = [block["baselines"].get(name, {}) for block in rows.values()]
            values = np.asarray([b.get("value") for b in found], np.float64)
            style = {"mfc": "white", "mec": color, "ms": 5.5, "mew": 1.2}
            axes.plot(values, y, mark, label=NAMES[name], **style)
        low, value, high = (
            np.asarray([block[k] for block in rows.values()], np.float64)
            for k in ("low", "value", "high")
        )
        axes.hlines(y, low, high, color=figures.BLUE, lw=1.6, alpha=0.6)
        axes.plot(value, y, "o", color=figures.BLUE, ms=5, label="peak of the map")
        axes.set_yticks(y, [tables.words(name) for name in rows])
        axes.set(xlim=(-0.01, 1.01), ylim=(y[-1] - 0.6, 0.6))
        axes.tick_params(axis="y", length=0)
        axes.grid(color=figures.GRID, lw=0.5)
        axes.set_axisbelow(True)
        axes.spines["left"].set_visible(False)
        axes.set_xlabel("share of films on which the place lies in a box")
        figure.legend(loc="outside upper right", ncols=4)
        return figure

    return figures.svg(draw)


def _pointing_table(shown: Mapping[str, Mapping[str, Any]]) -> str:
    headers = ["Class", "Films", "Patients", "Peak\nin box"]
    headers += [name.capitalize().replace(" ", "\n") for name in NAMES.values()] + [
        "Remark"
    ]
    rows = []
    for name, found in shown.items():
        baselines = found["pointing"]["baselines"]
        said = [found["flag"], _discarded(found)]
        rows.append(
            [tables.words(name), f"{found['films']:,}"]
            + [f"{found['positive_patients']:,}", tables.interval(found["pointing"])]
            + [tables.number(baselines.get(k, {}).get("value")) for k in NAMES]
            + ["; ".join(text for text in said if text)]
        )
    if not any(row[-1] for row in rows):
        headers, rows = headers[:-1], [row[:-1] for row in rows]
    text = (len(headers) - 1,) if headers[-1] == "Remark" else ()
    caption = "Share of films on which each place lies in a box of the class."
    return html.table(headers, rows, caption=caption, text=text)


def _difference_table(
    shown: Mapping[str, Mapping[str, Any]], block: Mapping[str, Any]
) -> str:
    rows = []
    for name, found in shown.items():
        differences = found["pointing"]["differences"]
        cells = [
            tables.interval(differences[k]) if k in differences else "unknown"
            for k in NAMES
        ]
        ahead = {True: "yes", False: "no", None: "unknown"}[found["ahead_of_all"]]
        rows.append([tables.words(name), *cells, ahead])
    headers = ["Class", *(f"less\n{name}" for name in NAMES.values()), "Ahead\nof all"]
    caption = "Peak in box, less what chance reaches; no intervals were asked for."
    if block["resamples"]:
        caption = (
            "Peak in box, less what chance reaches; 95% intervals in brackets,"
            f" {block['resamples']:,} resamples, resampling unit:"
            f" {block['resampling_unit']}."
        )
    return html.table(headers, rows, caption=caption)


def _extent_table(
    shown: Mapping[str, Mapping[str, Any]], block: Mapping[str, Any]
) -> str:
    columns = {
        "IoU\nof the map's box": ("iou", None),
        "IoU\nusual box": ("iou", "location"),
        "IoU\nrandom weights": ("iou", "randomised"),
        "Energy\nin the boxes": ("energy", None),
        "Energy\narea chance": ("energy", "area"),
        "Energy\nrandom weights": ("energy", "randomised"),
    }
    rows = []
    for name, found in shown.items():
        cells = []
        for measure, baseline in columns.values():
            value = found[measure]
            if baseline is None:
                cells.append(tables.interval(value))
            else:
                known = value["baselines"].get(baseline, {})
                cells.append(tables.number(known.get("value")))
        rows.append([tables.words(name), *cells])
    caption = (
        f"The map's box: around the part at or above {100 * block['share']:.0f}% of the"
        " maximum that holds the peak. Energy: share of what is above 0 in the map that"
        " lies in the boxes. A map shows influence, not extent."
    )
    return html.table(["Class", *columns], rows, caption=caption)


def _discarded(found: Mapping[str, Any]) -> str:
    count = found["discarded"]
    return f"{count:,} resamples without a box discarded" if count else ""
