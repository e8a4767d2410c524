"""Studies, not films: how films became studies, figures by type, and by kind.

What others published stands in columns of its own, headed so: their studies are not ours.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from cxr_jax.metrics.ranking import FEW_POSITIVE_PATIENTS
from cxr_jax.pages import html, tables
from cxr_jax.pages.evidence import Evidence

Block = Mapping[str, Any]

NAMED = 5  # studies whose views disagree that are named
METRICS = {"f1": "F1", "kappa": "Cohen's κ", "auroc": "AUROC"}
BESIDE = (
    "The same films one by one, each with its own label, and read together by"
    " study. Both figures come from the same patients: that their intervals overlap does"
    " not say that they are equal."
)


def section(evidence: Evidence) -> str:
    """The section of the report; empty where nothing was evaluated by study.

    Besides ``result.json`` it reads ``config.report``, where an entry may be missing:
    ``published_counts`` (``name``, ``counts``: type → not abnormal, abnormal),
    ``published_kinds`` (``name``, ``studies``, ``counts``: kind → studies),
    ``reader_study`` (``name``, ``split``, ``metric``, ``average`` and ``model``: type →
    value, low, high) and ``context`` (``dataset``, ``study type``, ``label``, ``images``).
    """
    block, kinds = evidence.main.get("studies"), evidence.main.get("kinds")
    if not block and not kinds:
        return ""
    parts = []
    if block:
        parts = [
            html.paragraph(_origin(block, evidence.main["split"])),
            html.paragraph(_views(block), kind="note"),
            _by_type(evidence, block),
            _decision(evidence.main.get("decision"), total=bool(block["column"])),
            _beside_films(evidence, block),
        ]
    if kinds:
        parts += [_kinds(kinds, _told(evidence, "published_kinds"))]
    if block:
        parts += [_counts(evidence), *_published(evidence)]
    return html.section("Studies", *parts, _context(evidence))


SHOWN = ("f1", "kappa", "sensitivity", "specificity")


def _decision(block: Block | None, *, total: bool) -> str:
    """The paper's rule against the labels, type by type."""
    if not block:
        return ""
    rows, per_class = [], block["per_class"].values()
    for name, found in block["per_class"].items():
        p, n = found["positives"], found["n"]
        rows.append(
            [
                tables.words(name) + (" *" if found["flag"] else ""),
                f"{n:,}",
                f"{p:,}",
                tables.or_dash(found["f1"]),
                tables.number(2 * p / (n + p)) if p else "–",
                *(tables.or_dash(found[k]) for k in SHOWN[1:]),
            ]
        )
    flags = [f["flag"] for f in per_class if f["flag"]]
    missing = {f[k]["reason"] for f in per_class for k in SHOWN if "reason" in f[k]}
    caption = (
        f"Called above {block['threshold']:g}, against the labels. Calling all: F1 of"
        " calling every study abnormal. 95% intervals, resampling unit:"
        f" {block['resampling_unit']}.{f' * {flags[0]}.' if flags else ''}"
        f"{''.join(f' –: {why}.' for why in sorted(missing))}"
    )
    headers = ["Type", "Studies", "Abnormal", "F1", "Calling all,\nF1", "Cohen's κ"]
    headers += ["Sensitivity", "Specificity"]
    return html.table(headers, rows, caption=caption, total=total)


def _told(evidence: Evidence, key: str) -> Sequence[Block]:
    """Entries of the config; none where it has no such key."""
    return (evidence.config.get("report") or {}).get(key) or ()


def _origin(block: Block, part: str) -> str:
    return (
        f"The {part} part: {block['films']:,} films of {block['n']:,} studies. The score of"
        f" a study is the {block['rule']}. A study is abnormal where any of its films is"
        f" labelled so. {_disagreeing(block['disagreeing'])}"
    )


def _disagreeing(names: Sequence[str]) -> str:
    if not names:
        return "In no study do the views disagree in their label."
    more = f" and {len(names) - NAMED:,} more" if len(names) > NAMED else ""
    studies = "study" if len(names) == 1 else "studies"
    return (
        f"In {len(names):,} {studies} the views disagree in their label:"
        f" {', '.join(names[:NAMED])}{more}."
    )


def _views(block: Block) -> str:
    """The histogram, fewest views first."""
    found = sorted((int(views), n) for views, n in block["views"].items())
    told = [f"{n:,} of {views} view{'s' if views > 1 else ''}" for views, n in found]
    return f"Studies by number of views: {', '.join(told)}."


def _references(metrics: Block) -> list[tuple[str, str]]:
    """Names of the metric and heads of its columns, the truth first where it is known.

    Where both say the same of every case they share one column.
    """
    if metrics["auroc"]["per_class"] == metrics.get("auroc@truth", {}).get("per_class"):
        return [("auroc", "labels are true")]
    known = [("auroc@truth", "against truth"), ("auroc", "against labels")]
    return [(name, words) for name, words in known if name in metrics]


def _by_type(evidence: Evidence, block: Block) -> str:
    metrics = evidence.main["metrics"]
    shown = _references(metrics)
    rows = []
    for name, value in metrics["auroc"]["per_class"].items():
        figures = [tables.interval(metrics[m]["per_class"][name]) for m, _ in shown]
        counts = [f"{value['n']:,}", f"{value['positives']:,}"]
        rows.append([tables.words(name), *counts, *figures, tables.remark(value)])
    head = [_head(block), "Studies", "Abnormal"]
    head += [f"AUROC\n{words}" for _, words in shown]
    unit = metrics["auroc"]["mean"]["resampling_unit"]
    return _with_remarks(
        head,
        rows,
        caption="AUROC of studies, 95% intervals in brackets; resampling unit:"
        f" {unit}. Counts are of the labels.",
        total=bool(block["column"]),
    )


def _head(block: Block) -> str:
    return tables.words(block["column"]).capitalize() or "Class"


def _beside_films(evidence: Evidence, block: Block) -> str:
    """One row of the films, one of the studies; only where there is one finding."""
    films, studies = block["of_films"], evidence.main["metrics"]
    if not films or len(films["auroc"]["per_class"]) != 1:
        return ""
    shown = _references(films)
    rows = []
    for words, metrics in (("All films, singly", films), ("All studies", studies)):
        # The last column is the one of all studies.
        found = {m: [*metrics[m]["per_class"].values()][-1] for m, _ in shown}
        counts = [f"{found['auroc'][k]:,}" for k in ("n", "positives")]
        rows.append([words, *counts, *(tables.interval(found[m]) for m, _ in shown)])
    head = ["Judged", "Number", "Abnormal"]
    head += [f"AUROC\n{words}" for _, words in shown]
    gain = block.get("gain") or {"value": None}
    caption = BESIDE
    if gain["value"] is not None and gain["low"] is not None:
        caption += (
            " AUROC of studies minus that of films, on the same resamples"
            f"{' and against truth' if gain['metric'].endswith('@truth') else ''}:"
            f" {tables.signed(gain)}."
        )
    return html.table(head, rows, caption=caption)


def _kinds(block: Block, published: Sequence[Block]) -> str:
    rows = []
    for name, found in block["per_kind"].items():
        said = []
        if found["positive_patients"] < FEW_POSITIVE_PATIENTS:
            said.append(f"fewer than {FEW_POSITIVE_PATIENTS} patients")
        if found.get("discarded"):
            said.append(f"{found['discarded']:,} resamples discarded")
        counts = [f"{found[k]:,}" for k in ("positives", "called")]
        value = "–" if found["value"] is None else tables.interval(found)
        rows.append([tables.words(name).capitalize(), *counts, value, "; ".join(said)])
    caption = (
        f"Share of the {block['n']:,} abnormal studies of known kind that are called, with"
        f" a score above {block['threshold']:g}. A study may show several kinds. 95%"
        f" intervals; resampling unit: {block['resampling_unit']}."
    )
    for entry in published:
        counts = ", ".join(f"{n:,} {kind}" for kind, n in entry["counts"].items())
        caption += (
            f" Published context ({entry['name']}): of {entry['studies']:,} abnormal"
            f" studies reviewed there, {counts}; how common each kind is, not how often it"
            " is found."
        )
    return html.heading("Sensitivity by kind of abnormality", level=3) + _with_remarks(
        ["Kind", "Studies", "Called", "Sensitivity"],
        rows,
        caption=caption,
        total="all" in block["per_kind"],
    )


def _counts(evidence: Evidence) -> str:
    """Studies by label in every part that was evaluated by study."""
    parts = {
        name: result["metrics"]["auroc"]["per_class"]
        for name, result in evidence.results.items()
        if "studies" in result
    }
    types = list(dict.fromkeys(n for found in parts.values() for n in found))
    block = evidence.main["studies"]
    head, rows = [_head(block)], [[tables.words(name)] for name in types]
    for part, found in parts.items():
        head += [f"{part}\nnot abnormal", f"{part}\nabnormal", f"{part}\nstudies"]
        for row, name in zip(rows, types, strict=True):
            row += _three(found.get(name))
    caption = "The parts that were evaluated here, by the labels."
    for entry in _told(evidence, "published_counts"):
        theirs = _with_total(entry["counts"], types[-1])
        caption += f" Published: {entry['name']}; other studies than these."
        head += [f"Published:\n{words}" for words in ("normal", "abnormal", "studies")]
        for row, name in zip(rows, types, strict=True):
            row += _row(*theirs[name]) if name in theirs else ["–"] * 3
    return html.heading("Studies by label", level=3) + html.table(
        head, rows, caption=caption, total=bool(block["column"])
    )


def _row(normal: int, abnormal: int) -> list[str]:
    return [f"{n:,}" for n in (normal, abnormal, normal + abnormal)]


def _three(found: Block | None) -> list[str]:
    if found is None:
        return ["–"] * 3
    counts = (found["n"] - found["positives"], found["positives"], found["n"])
    return [f"{n:,}" for n in counts]


def _published(evidence: Evidence) -> list[str]:
    """Others' reader studies, with ours in columns that say what they are of."""
    told = _told(evidence, "reader_study")
    if not told:
        return []
    why = (
        "Columns of one table, and not to be compared by subtraction: the published"
        " figures are of other studies, with labels and readers of their own."
    )
    if evidence.phantom:
        why += " The films of this page are computed, and its readers simulated."
    return [
        html.heading("Beside published figures", level=3),
        html.paragraph(why),
        *(_beside_published(evidence, entry) for entry in told),
    ]


def _beside_published(evidence: Evidence, entry: Block) -> str:
    """A published table of readers, and what this run has of the same kind."""
    metric = METRICS.get(entry["metric"], entry["metric"])
    average, model = entry["average"], entry["model"]
    known = [n for n in evidence.main["metrics"]["auroc"]["per_class"] if n in average]
    names = list(dict.fromkeys([*known, *average, *model]))
    head = ["Type", f"Published:\n{metric}, readers", f"Published:\n{metric}, model"]
    columns = [[_estimate(found.get(n)) for n in names] for found in (average, model)]
    for words, ours in _own(evidence, entry["metric"]):
        head.append(f"Ours, {evidence.main['split']}:\n{metric}, {words}")
        columns.append([tables.or_dash(ours[n]) if n in ours else "–" for n in names])
    rows = [[tables.words(n), *row] for n, *row in zip(names, *columns, strict=True)]
    return html.table(
        head,
        rows,
        caption=f"Published: {entry['name']}, on {entry['split']}. Ours: the"
        f" {evidence.main['split']} part of {evidence.main['dataset']}. 95% intervals in"
        " brackets.",
    )


def _own(evidence: Evidence, metric: str) -> list[tuple[str, Mapping[str, Block]]]:
    """Heads and figures by type: of a reader study where there is one, else the labels."""
    study = (evidence.main.get("readers") or {}).get("protocols") or {}
    found = study.get("majority", {}).get("per_class")
    if found:
        return [
            (
                f"{words} against\nother readers",
                {n: f[metric][key] for n, f in found.items()},
            )
            for words, key in (("readers", "average"), ("model", "model"))
        ]
    found = (evidence.main.get("decision") or {}).get("per_class") or {}
    against = "model against the labels"
    return [(against, {n: one[metric] for n, one in found.items()})] if found else []


def _estimate(found: Sequence[float] | None) -> str:
    if found is None:
        return "–"
    return tables.interval(dict(zip(("value", "low", "high"), found, strict=True)))


def _with_total(counts: Mapping[str, Sequence[int]], whole: str) -> dict[str, Any]:
    """Normal and abnormal by type, and of all types together."""
    sums = tuple(sum(column) for column in zip(*counts.values(), strict=True))
    return {**counts, whole: sums}


def _context(evidence: Evidence) -> str:
    rows = [
        [row["dataset"], row["study type"], row["label"], f"{row['images']:,}"]
        for row in _told(evidence, "context")
    ]
    if not rows:
        return ""
    head = ["Dataset", "Study type", "Label", "Images"]
    return html.folded(
        "Public datasets of radiographs, as published",
        html.table(head, rows, text=(1, 2)),
    )


def _with_remarks(
    head: list[str], rows: list[list[str]], *, caption: str, total: bool
) -> str:
    """A table whose last column, of remarks, is there only where one is made."""
    if any(row[-1] for row in rows):
        return html.table(
            [*head, "Remark"], rows, caption=caption, total=total, text=(len(head),)
        )
    return html.table(head, [row[:-1] for row in rows], caption=caption, total=total)
