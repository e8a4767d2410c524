"""How well boxes find the boxed findings, beside rows that look at no film."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cxr_jax.evaluators.detection_blocks import shown_at
from cxr_jax.pages import box_gallery, box_methods, figures, html, tables
from cxr_jax.pages.evidence import Evidence

COLORS = (figures.BLUE, figures.ORANGE, figures.INK, figures.FAINT)
MEAN = "Mean"
DIGITS = 2  # Of figures of which a line has many.


def section(evidence: Evidence, *others: Evidence) -> str:
    """Average precision, localisation accuracy, FROC and films; nothing without boxes."""
    block = evidence.main.get("detection")
    if not block:
        return ""
    metrics = evidence.main["metrics"]
    parts = [
        html.paragraph(_words(block) + _chosen(evidence, *others)),
        box_methods.methods(evidence, *others),
        _per_class(metrics, block),
        _restricted(block),
        _curves(metrics, block),
        _free_response(block),
        _shared(block),
    ]
    if evidence.boxes is not None:
        beside = {
            run.name: run.found
            for run in others
            if run.found is not None
            and run.main["split_sha256"] == evidence.main["split_sha256"]
        }
        shown = box_gallery.gallery(evidence.boxes, name=evidence.name, beside=beside)
        parts += [html.heading("Films", level=3), shown]
    return html.section("Boxes of findings", *filter(None, parts))


def _words(block: Mapping[str, Any]) -> str:
    keep = block["keep_above"]
    loud = f" Boxes count above a score of {keep:g} there." if keep > 0 else ""
    return (
        f"A box finds a finding if their IoU exceeds a threshold. AP is the area under"
        " precision over recall at 101 points, boxes ranked by score; mAP is its mean over"
        f" {box_methods.overlaps(block['thresholds'])}. Localisation"
        " accuracy (loc-acc) counts films without any box of the class as successes: a"
        f" method that predicts nothing scores high, so nothing is ranked by it.{loud}"
        f" {_unboxed(block)} The second table leaves films without a box of the class"
        " out."
    )


def _unboxed(block: Mapping[str, Any]) -> str:
    if not block.get("unboxed"):
        return "Films may show findings that nobody boxed; a box there counts as false."
    return (
        f"{block['unboxed']:,} of the {block['n']:,} films have a label of these classes"
        " that nobody boxed: a box there counts as false, and may be right."
    )


def _chosen(*runs: Evidence) -> str:
    """Boxes have been looked at before, where they chose the weights."""
    named = [
        run.name
        for run in runs
        if (run.config.get("checkpoint") or {}).get("metric") == "map"
    ]
    if not named:
        return ""
    whose = "" if len(runs) == 1 else f" of {', '.join(named)}"
    return (
        f" The weights{whose} were chosen by mAP on the boxes of the validation part."
    )


def _per_class(metrics: Mapping[str, Any], block: Mapping[str, Any]) -> str:
    names = _ranking(block)
    accuracy = f"loc_acc@{shown_at(block['thresholds']):g}"
    names[accuracy] = accuracy.replace("loc_acc@", "loc-acc\n")
    rows = []
    for name in block["boxed"]:
        told = {k: metrics[k]["per_class"][name] for k in names}
        rows.append(
            [tables.words(name), f"{block['reference'][name]:,}"]
            + [f"{told['map']['positive_patients']:,}", f"{block['predicted'][name]:,}"]
            + [box_methods.with_interval(told[k], k) for k in names]
            + [tables.remark(told["map"])]
        )
    means = [box_methods.with_interval(metrics[k]["mean"], k) for k in names]
    counts = [f"{sum(block[k].values()):,}" for k in ("reference", "predicted")]
    rows.append([MEAN, counts[0], "", counts[1], *means, ""])
    for row, found in block["rows"].items():
        cells = [box_methods.plain(found[k], k) for k in names]
        rows.append([row.capitalize(), "", "", "", *cells, ""])
    headers = ["Class", "Boxes", "Patients", "Predicted", *names.values(), "Remark"]
    if not any(row[-1] for row in rows):
        headers, rows = headers[:-1], [row[:-1] for row in rows]
    text = (len(headers) - 1,) if headers[-1] == "Remark" else ()
    return html.table(headers, rows, caption="Per class; AP ×100.", text=text)


def _ranking(block: Mapping[str, Any]) -> dict[str, str]:
    """Metrics that rank, and their heads."""
    shown = box_methods.columns(block["thresholds"])
    return {k: head for k, head in shown.items() if not k.startswith("loc_acc")}


def _restricted(block: Mapping[str, Any]) -> str:
    """The same on films with a box of the class alone."""
    found = block.get("restricted_metrics")
    if found is None:
        return ""
    names = _ranking(block)
    rows = [
        [tables.words(name)]
        + [box_methods.with_interval(found[k]["per_class"][name], k) for k in names]
        for name in block["boxed"]
    ]
    means = [box_methods.with_interval(found[k]["mean"], k) for k in names]
    rows.append([MEAN, *means])
    for row, chance in block["rows"].items():
        cells = [box_methods.plain(chance["restricted"][k], k) for k in names]
        rows.append([row.capitalize(), *cells])
    caption = "Per class, films with a box of the class alone; AP ×100."
    table = html.table(["Class", *names.values()], rows, caption=caption)
    return html.folded("Films with a box of the class alone", table)


def _curves(metrics: Mapping[str, Any], block: Mapping[str, Any]) -> str:
    names = [n for n in block["boxed"] if block["reference"][n]]
    if not names:
        return html.paragraph("No curves: there is no reference box.", kind="note")
    shown = shown_at(block["thresholds"])
    return html.figure(
        figures.svg(lambda: _drawing(names, metrics, block)),
        "AP over the overlap that is asked for, and free-response curves: the share of"
        f" reference boxes found, at IoU {shown:g}, at a number of false boxes per film."
        " Thick: mean over classes, with its 95% interval. Dotted: mean box of the"
        " validation part. A method that draws one box of a class on a film finds one"
        " of several at most: its curve then ends below 1.",
        alt="average precision over IoU, and FROC curves, per class",
    )


def _drawing(
    names: Sequence[str], metrics: Mapping[str, Any], block: Mapping[str, Any]
) -> Figure:
    figure = Figure(figsize=(figures.WIDTH, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    thresholds, rates = block["thresholds"], block["froc"]["false_per_film"]
    at = f"{shown_at(thresholds):g}"
    for k, name in enumerate(names):
        style = {"color": COLORS[k % 4], "ls": ("-", "--", ":")[k // 4 % 3]}
        style |= {"marker": "os^Dv"[k % 5], "ms": 3, "lw": 1.1, "alpha": 0.7}
        values = [metrics[f"ap@{t:g}"]["per_class"][name]["value"] for t in thresholds]
        left.plot(thresholds, 100 * np.array(values, float), **style)
        found = block["froc"]["sensitivity"][name][at]
        right.plot(rates, found, label=tables.words(name), **style)
    _means(left, right, metrics, block, at)
    left.set(xlabel="IoU that a box must exceed", ylabel="AP ×100")
    left.set_ylim(bottom=0)
    right.set(
        xlabel="false boxes of the class per film",
        ylabel=f"share of boxes found, IoU {at}",
    )
    right.set_xscale("log", base=2)
    right.set_xticks(rates, [f"{rate:g}" for rate in rates])
    right.set_ylim(0, 1)
    for axes in (left, right):
        axes.grid(color=figures.GRID, lw=0.5)
        axes.set_axisbelow(True)
    figure.legend(loc="outside lower center", ncols=5)
    return figure


def _means(
    left: Axes,
    right: Axes,
    metrics: Mapping[str, Any],
    block: Mapping[str, Any],
    at: str,
) -> None:
    """Means over classes with their intervals, and those of the usual box."""
    thresholds, rates = block["thresholds"], block["froc"]["false_per_film"]
    ap = [metrics[f"ap@{t:g}"]["mean"] for t in thresholds]
    ends = ("value", "low", "high")
    _band(left, thresholds, [[100 * _number(m[end]) for m in ap] for end in ends])
    if mean := block["froc"].get("sensitivity_mean"):
        _band(right, rates, [mean[end][at] for end in ends], label="mean")
    dotted = {"color": figures.INK, "ls": (0, (1, 1)), "lw": 1.6}
    for row, found in block["rows"].items():
        if row == "no boxes" or "froc" not in found:
            continue
        values = [100 * _number(found[f"ap@{t:g}"]) for t in thresholds]
        left.plot(thresholds, values, **dotted)
        right.plot(rates, found["froc"][at], label=row, **dotted)


def _band(axes: Axes, x: Sequence[float], sides: Any, **style: Any) -> None:
    value, low, high = np.array(sides, float)
    axes.plot(x, value, color=figures.INK, lw=2.4, **style)
    axes.fill_between(x, low, high, color=figures.INK, alpha=0.12, lw=0)


def _number(value: float | None) -> float:
    return np.nan if value is None else value


def _free_response(block: Mapping[str, Any]) -> str:
    """Sensitivities of the curves, with intervals."""
    froc, at = block["froc"], f"{shown_at(block['thresholds']):g}"
    if "sensitivity_mean" not in froc:
        return ""
    rows = _several(
        block, froc, "sensitivity", lambda of: of[at], lambda row: row["froc"][at]
    )
    headers = [
        "Class",
        *(f"{rate:g} false\nper film" for rate in froc["false_per_film"]),
    ]
    caption = (
        "Share of reference boxes found at a number of false boxes of the class per"
        f" film, IoU {at}."
    )
    table = html.table(headers, rows, caption=caption)
    return html.folded("Free-response figures", table)


def _shared(block: Mapping[str, Any]) -> str:
    """By the share of the predicted box that lies in the finding."""
    found, shown = block["iobb"], shown_at(block["thresholds"])
    if "accuracy_mean" not in found:
        return ""
    k = block["thresholds"].index(shown)
    rows = _several(block, found, "accuracy", list, lambda row: row["iobb"])
    false = _several(
        block,
        found,
        "false_per_film",
        lambda of: of[k : k + 1],
        lambda row: row["false_per_film"][k : k + 1],
    )
    rows = [[*row, last] for row, (_, last) in zip(rows, false, strict=True)]
    headers = ["Class", *(f"IoBB\n{t:g}" for t in found["thresholds"])]
    headers.append(f"False boxes\nper film, IoU {shown:g}")
    caption = (
        "Localisation accuracy by the share of the predicted box that lies in the"
        " reference box (IoBB), which large reference boxes make easy; films without any"
        " box count as successes here too."
    )
    return html.table(headers, rows, caption=caption)


def _several(
    block: Mapping[str, Any],
    found: Mapping[str, Any],
    name: str,
    pick: Callable[[Any], Sequence[float | None]],
    chance: Callable[[Mapping[str, Any]], Sequence[float | None]],
) -> list[list[str]]:
    """Rows of figures of which a class has several: classes, their mean, chance.

    Args:
        block: of the result.
        found: what holds them.
        name: of the figures.
        pick: some of those of a class.
        chance: the same of a row that looks at no film.
    """
    ends, mean = found[f"{name}_interval"], found[f"{name}_mean"]
    sides = {n: (found[name][n], ends["low"][n], ends["high"][n]) for n in found[name]}
    sides = {tables.words(n): told for n, told in sides.items()}
    sides[MEAN] = tuple(mean[end] for end in ("value", "low", "high"))
    rows = [
        [row, *(_cell(*three) for three in zip(*map(pick, told), strict=True))]
        for row, told in sides.items()
    ]
    return rows + [
        [row.capitalize(), *(tables.number(value, DIGITS) for value in chance(values))]
        for row, values in block["rows"].items()
    ]


def _cell(value: float | None, low: float | None, high: float | None) -> str:
    if value is None:
        return tables.number(None)
    return tables.interval({"value": value, "low": low, "high": high}, DIGITS)
