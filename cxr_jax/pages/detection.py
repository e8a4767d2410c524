"""How well boxes find the boxed findings, beside rows that look at no film."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from cxr_jax.pages import box_gallery, figures, html, tables
from cxr_jax.pages.evidence import Evidence

# What a table of several methods shows, and how papers print it.
COLUMNS = {
    "map": "mAP",
    "ap@0.1": "AP\n0.1",
    "ap@0.3": "AP\n0.3",
    "ap@0.5": "AP\n0.5",
    "loc_acc@0.1": "loc-acc\n0.1",
    "loc_acc@0.3": "loc-acc\n0.3",
    "loc_acc@0.5": "loc-acc\n0.5",
}
SHOWN_AT = 0.3
COLORS = (figures.BLUE, figures.ORANGE, figures.INK, figures.FAINT)


def section(evidence: Evidence, *others: Evidence) -> str:
    """Average precision, localisation accuracy, FROC and films; nothing without boxes."""
    block = evidence.main.get("detection")
    if not block:
        return ""
    metrics = evidence.main["metrics"]
    parts = [
        html.paragraph(_words(block)),
        _methods(evidence, *others),
        _per_class(metrics, block),
        _curves(metrics, block),
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
        f" IoU {block['thresholds'][0]:g} to {block['thresholds'][-1]:g}. Localisation"
        " accuracy (loc-acc) counts films without any box of the class as successes: a"
        f" method that predicts nothing scores high, so nothing is ranked by it.{loud}"
        f" {_unboxed(block)} The last line of the table leaves films without a box of the"
        " class out."
    )


def _unboxed(block: Mapping[str, Any]) -> str:
    if not block.get("unboxed"):
        return "Films may show findings that nobody boxed; a box there counts as false."
    return (
        f"{block['unboxed']:,} of the {block['n']:,} films have a label of these classes"
        " that nobody boxed: a box there counts as false, and may be right."
    )


def _methods(evidence: Evidence, *others: Evidence) -> str:
    """Ours, runs beside it, and rows of chance; papers stand below, apart."""
    rows = []
    for run in (evidence, *others):
        block = run.main.get("detection")
        if not block:
            continue
        means = {k: run.main["metrics"][k]["mean"] for k in COLUMNS}
        name = run.name if others else "This run"
        rows.append([name, *(_percent(means[k], k) for k in COLUMNS)])
    rows += _repeated((evidence, *others))
    block = evidence.main["detection"]
    for name, found in (*block["rows"].items(),):
        rows.append([name.capitalize(), *(_plain(found[k], k) for k in COLUMNS)])
    restricted = block["restricted"]
    rows.append(
        ["This run, films with a box of the class alone"]
        + [_plain(restricted.get(k), k) for k in COLUMNS]
    )
    caption = (
        f"Means over the boxed classes, {evidence.main['n']:,} films; AP ×100; 95%"
        " intervals in brackets, resampling unit:"
        f" {evidence.main['metrics']['map']['mean']['resampling_unit']}."
    )
    shown = html.table(["", *COLUMNS.values()], rows, caption=caption)
    published = (evidence.config.get("report") or {}).get("published_boxes") or ()
    return shown + _published(published)


def _repeated(runs: Sequence[Evidence]) -> list[list[str]]:
    """Mean and standard deviation of runs that differ in their seeds alone."""
    groups: dict[str, list[Evidence]] = {}
    for run in runs:
        if run.main.get("detection"):
            groups.setdefault(_but_seeds(run.config), []).append(run)
    rows = []
    for same in groups.values():
        if len(same) < 2:
            continue
        values = {
            k: np.array(
                [run.main["metrics"][k]["mean"]["value"] for run in same], float
            )
            for k in COLUMNS
        }
        told = [_mean_and_sd(v, k) for k, v in values.items()]
        name = same[0].network or same[0].name
        rows.append([f"{name}: mean ± sd of {len(same)} runs", *told])
    return rows


def _but_seeds(config: Mapping[str, Any]) -> str:
    """A config as text, without the seeds of training and of the division."""
    data = {k: v for k, v in (config.get("data") or {}).items() if k != "split_seed"}
    rest = {k: v for k, v in config.items() if k not in ("seed", "data")}
    return json.dumps([data, rest], sort_keys=True)


def _mean_and_sd(values: np.ndarray, name: str) -> str:
    if not np.isfinite(values).all():
        return tables.number(None)
    times, digits = (1, 3) if _is_accuracy(name) else (100, 1)
    mean, sd = times * values.mean(), times * values.std(ddof=1)
    return f"{mean:.{digits}f} ± {sd:.{digits}f}"


def _published(rows: Sequence[Mapping[str, Any]]) -> str:
    """What papers print, on films that cannot be drawn again."""
    if not rows:
        return ""
    cells = [
        [row["name"], *(_printed(row["values"].get(k)) for k in COLUMNS)]
        for row in rows
    ]
    return html.table(
        ["Published", *COLUMNS.values()],
        cells,
        caption=f"As printed, not measured here: {rows[0]['source']}; {rows[0]['split']}."
        " No figure above is subtracted from these.",
    )


def _per_class(metrics: Mapping[str, Any], block: Mapping[str, Any]) -> str:
    rows = []
    for name in block["boxed"]:
        told = {k: metrics[k]["per_class"][name] for k in COLUMNS}
        rows.append(
            [tables.words(name), f"{block['reference'][name]:,}"]
            + [f"{told['map']['positive_patients']:,}", f"{block['predicted'][name]:,}"]
            + [_percent(told[k], k) for k in ("map", "ap@0.1", "ap@0.3", "ap@0.5")]
            + [tables.or_dash(told["loc_acc@0.3"]), tables.remark(told["map"])]
        )
    headers = ["Class", "Boxes", "Patients", "Predicted", "mAP", "AP\n0.1", "AP\n0.3"]
    headers += ["AP\n0.5", "loc-acc\n0.3", "Remark"]
    if not any(row[-1] for row in rows):
        headers, rows = headers[:-1], [row[:-1] for row in rows]
    text = (9,) if headers[-1] == "Remark" else ()
    return html.table(headers, rows, caption="Per class; AP ×100.", text=text)


def _curves(metrics: Mapping[str, Any], block: Mapping[str, Any]) -> str:
    names = [n for n in block["boxed"] if block["reference"][n]]
    rates = block["froc"]["false_per_film"]
    found = block["froc"]["sensitivity"]

    def draw() -> Figure:
        figure = Figure(figsize=(figures.WIDTH, 3.2), layout="constrained")
        left, right = figure.subplots(1, 2)
        for k, name in enumerate(names):
            style = {"color": COLORS[k % 4], "ls": ("-", "--", ":")[k // 4 % 3]}
            style |= {"marker": "os^Dv"[k % 5], "ms": 3, "lw": 1.1}
            values = [
                metrics[f"ap@{t:g}"]["per_class"][name]["value"]
                for t in block["thresholds"]
            ]
            left.plot(block["thresholds"], 100 * np.array(values, float), **style)
            right.plot(
                rates, found[name][f"{SHOWN_AT:g}"], label=tables.words(name), **style
            )
        left.set(xlabel="IoU that a box must exceed", ylabel="AP ×100")
        left.set_ylim(bottom=0)
        right.set(
            xlabel="false boxes of the class per film",
            ylabel=f"share of boxes found, IoU {SHOWN_AT:g}",
        )
        right.set_xscale("log", base=2)
        right.set_xticks(rates, [f"{rate:g}" for rate in rates])
        right.set_ylim(0, 1)
        for axes in (left, right):
            axes.grid(color=figures.GRID, lw=0.5)
            axes.set_axisbelow(True)
        figure.legend(loc="outside lower center", ncols=4)
        return figure

    return html.figure(
        figures.svg(draw),
        "AP over the overlap that is asked for, and free-response curves: the share of"
        " reference boxes found at a number of false boxes per film.",
        alt="average precision over IoU, and FROC curves, per class",
    )


def _shared(block: Mapping[str, Any]) -> str:
    """By the share of the predicted box that lies in the finding."""
    found = block["iobb"]
    middle = block["thresholds"].index(SHOWN_AT)
    rows = [
        [tables.words(name), *(tables.number(v) for v in values)]
        + [tables.number(found["false_per_film"][name][middle])]
        for name, values in found["accuracy"].items()
    ]
    headers = ["Class", *(f"IoBB\n{t:g}" for t in found["thresholds"])]
    headers.append(f"False boxes\nper film, IoU {SHOWN_AT:g}")
    caption = (
        "Localisation accuracy by the share of the predicted box that lies in the"
        " reference box (IoBB), which large reference boxes make easy."
    )
    return html.table(headers, rows, caption=caption)


def _is_accuracy(name: str) -> bool:
    return name.startswith("loc_acc")


def _percent(value: Mapping[str, Any], name: str) -> str:
    """An AP ×100 with one digit, an accuracy as it is; with its interval."""
    if _is_accuracy(name) or value["value"] is None:
        return tables.or_dash(value)
    scaled = {
        k: None if value.get(k) is None else 100 * value[k]
        for k in ("value", "low", "high")
    }
    return tables.interval(scaled, 1)


def _plain(value: float | None, name: str) -> str:
    if value is None or _is_accuracy(name):
        return tables.number(value)
    return tables.number(100 * value, 1)


def _printed(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"
