"""Figures against adjudicated labels, beside those against mined ones."""

from cxr_jax.pages import html, tables
from cxr_jax.pages.evidence import Evidence


def section(evidence: Evidence) -> str:
    """The block ``adjudicated`` of the result; nothing where there is none."""
    block = evidence.main.get("adjudicated")
    if not block or not block["metrics"]:
        return ""
    parts = [
        html.paragraph(
            f"{block['reference']} {block['n']:,} films carry both; every figure below"
            " is of the films of its class that do, so a column says what the labels"
            " change, not what the films do."
        )
    ]
    for name, words in (("auroc", "AUROC"), ("average_precision", "AP")):
        readers, usual = block["metrics"][name], block["mined"][name]
        listed = set(readers["mean"]["classes"])
        rows = [
            [
                tables.words(c),
                f"{value['n']:,}",
                f"{value['positives']:,} / {usual['per_class'][c]['positives']:,}",
                _share(block["agreement"][c]),
                tables.interval(value),
                tables.interval(usual["per_class"][c]),
                tables.remark(value),
            ]
            for c, value in readers["per_class"].items()
            if value["n"]
        ]
        means = [tables.interval(found["mean"]) for found in (readers, usual)]
        rows.append([tables.MEAN, "", "", "", *means, ""])
        headers = ["Class", "Films", "Positive\nadjudicated / usual", "Labels\nagree"]
        headers += [f"{words}, adjudicated", f"{words}, usual labels", "Remark"]
        if not any(row[-1] for row in rows):
            headers, rows = headers[:-1], [row[:-1] for row in rows]
        text = (6,) if len(headers) > 6 else ()
        caption = (
            "95% intervals in brackets; resampling unit:"
            f" {readers['mean']['resampling_unit']}. The mean runs over {len(listed)}"
            " classes."
        )
        parts.append(html.table(headers, rows, caption=caption, total=True, text=text))
    missing = [n for n, share in block["agreement"].items() if share is None]
    if missing:
        names = ", ".join(map(tables.words, missing))
        parts.append(html.paragraph(f"Not adjudicated: {names}.", kind="note"))
    return html.section("Adjudicated labels", *parts)


def _share(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}%"
