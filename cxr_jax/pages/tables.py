"""Tables of the report. Figures of different splits or data never share a column."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from cxr_jax.pages import html
from cxr_jax.pages.evidence import Evidence

MEAN = "Mean of the list"


def number(value: float | None, digits: int = 3) -> str:
    """A figure, or a dash where there is none."""
    return "–" if value is None else f"{value:.{digits}f}".replace("-", "−")


def interval(block: Mapping[str, Any], digits: int = 3) -> str:
    """``0.883 [0.871, 0.894]``, without brackets where there is no interval."""
    if block.get("value") is None:
        return "undefined"
    text = number(block["value"], digits)
    if block.get("low") is None:
        return text
    return f"{text} [{number(block['low'], digits)}, {number(block['high'], digits)}]"


def or_dash(estimate: Mapping[str, Any]) -> str:
    """An estimate with its interval, or a dash where it is undefined."""
    return "–" if estimate["value"] is None else interval(estimate)


def signed(gap: Mapping[str, Any], kind: str = "") -> str:
    """A difference with its interval; with ``kind`` that interval alone (``_readers``)."""
    if gap["value"] is None:
        return "–"
    low, high = gap.get(f"low{kind}"), gap.get(f"high{kind}")
    ends = "" if low is None else f"[{low:+.3f}, {high:+.3f}]"
    text = ends if kind else f"{gap['value']:+.3f} {ends}"
    return text.strip().replace("-", "−")


def words(name: str) -> str:
    """A class name as prose."""
    return name.replace("_", " ")


def auroc_table(evidence: Evidence) -> str:
    """AUROC per class, with ceilings."""
    metrics = evidence.main["metrics"]
    labels, truth = metrics["auroc"], metrics.get("auroc@truth")
    listed = labels["mean"]["classes"]
    columns: list[tuple[str, dict[str, str]]] = []
    if truth:
        columns.append(("AUROC\nagainst truth", _intervals(truth)))
    columns.append(("AUROC\nagainst labels", _intervals(labels)))
    if evidence.ceilings:
        columns.append(("Ceiling\nagainst truth", _plain(evidence.ceilings, listed, 3)))
    return _per_class(
        labels,
        columns,
        caption="95% intervals in brackets; resampling unit:"
        f" {labels['mean']['resampling_unit']}. Counts are of the labels.",
    )


def precision_table(evidence: Evidence) -> str:
    """Average precision per class, beside the prevalence that chance reaches."""
    metrics = evidence.main["metrics"]
    labels = metrics["average_precision"]
    truth = metrics.get("average_precision@truth")
    columns = [("AP\nagainst truth", _intervals(truth))] if truth else []
    columns.append(("AP\nagainst labels", _intervals(labels)))
    share = {
        name: f"{100 * b['positives'] / b['n']:.1f}%" if b["n"] else "–"
        for name, b in labels["per_class"].items()
    }
    columns.append(("Prevalence\n(labels)", share | {MEAN: ""}))
    skill = {
        name: number(block.get("brier_skill"))
        for name, block in evidence.main["calibration"].get("per_class", {}).items()
    }
    columns.append(("Brier\nskill", skill | {MEAN: ""}))
    return _per_class(
        labels,
        columns,
        caption="A ranking by chance has an AP equal to the prevalence.",
    )


def parts_table(results: Mapping[str, Mapping[str, Any]]) -> str:
    """One line per evaluated part."""
    names = list(dict.fromkeys(n for r in results.values() for n in r["metrics"]))
    # One of each kind: those at an overlap have a section of their own.
    names = [name for name in names if not name.partition("@")[2].startswith("0.")]
    rows = [
        [part, f"{result['n']:,}"]
        + [
            interval(result["metrics"][n]["mean"]) if n in result["metrics"] else "–"
            for n in names
        ]
        for part, result in results.items()
    ]
    return html.table(["Part", "Films", *(f"mean\n{n}" for n in names)], rows)


def passport_tables(passport: Mapping[str, Any]) -> list[str]:
    """Split passports: parts, patients, digests; two where other films judge."""
    judging = passport.get("evaluation")
    if not judging:
        return [_passport(passport)] if passport else []
    return [
        _passport(judging, role="Films that validate and judge", hidden="train"),
        _passport(passport, role="Films that train", hidden="test"),
    ]


def _passport(passport: Mapping[str, Any], *, role: str = "", hidden: str = "") -> str:
    rows = [
        [name, f"{p['images']:,}", f"{p['patients']:,}", p["sha256"]]
        for name, p in passport.get("parts", {}).items()
        if name != hidden
    ]
    overlap = passport.get("patient_overlap")
    who = f"{role}: {passport.get('dataset')}. " if role else ""
    caption = (
        f"{who}Scheme {passport.get('scheme')}, seed {passport.get('seed')}; patients in more"
        f" than one part: {overlap if isinstance(overlap, int) else json.dumps(overlap)}."
    )
    headers = ["Part", "Films", "Patients", "SHA-256 of the sorted ids"]
    return html.table(headers, rows, caption=caption, text=(3,))


def pairs_table(pairs: Mapping[str, Any]) -> str:
    """Names and values."""
    rows = [[name, str(value)] for name, value in pairs.items()]
    return html.table(["", "Value"], rows, text=(1,))


def remark(block: Mapping[str, Any]) -> str:
    """What must be said beside a figure."""
    said = [block["reason"], block["flag"]]
    if block["discarded"] and block["value"] is not None:
        said.append(f"{block['discarded']:,} resamples discarded")
    return "; ".join(text for text in said if text)


def _per_class(
    block: Mapping[str, Any],
    columns: Sequence[tuple[str, Mapping[str, str]]],
    *,
    caption: str,
) -> str:
    """Counts, some columns, remarks; the means below."""
    listed = set(block["mean"]["classes"])
    rows = []
    for name, value in block["per_class"].items():
        mark = "" if name in listed else " *"
        counts = [value[k] for k in ("positives", "positive_patients")]
        rows.append(
            [words(name) + mark, *(f"{count:,}" for count in counts)]
            + [cells.get(name, "–") for _, cells in columns]
            + [remark(value)]
        )
    rows.append([MEAN, "", "", *(cells[MEAN] for _, cells in columns), ""])
    if len(listed) < len(block["per_class"]):
        caption += " * not in the mean."
    headers = ["Class", "Positive\nfilms", "Positive\npatients"]
    headers += [*(head for head, _ in columns), "Remark"]
    if not any(row[-1] for row in rows):
        headers, rows = headers[:-1], [row[:-1] for row in rows]
    text = tuple(k for k, head in enumerate(headers) if head == "Remark")
    return html.table(headers, rows, caption=caption, total=True, text=text)


def _intervals(block: Mapping[str, Any]) -> dict[str, str]:
    cells = {name: interval(value) for name, value in block["per_class"].items()}
    return cells | {MEAN: interval(block["mean"])}


def _plain(
    values: Mapping[str, float | None], listed: Iterable[str], digits: int
) -> dict[str, str]:
    known = [values.get(name) for name in listed]
    mean = None if not known or None in known else sum(known) / len(known)
    cells = {name: number(value, digits) for name, value in values.items()}
    return cells | {MEAN: number(mean, digits)}
