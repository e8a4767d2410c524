"""Published figures beside ours, as the paper's table has them.

A column per split. A difference is taken only where the films and their labels are the
same; what nobody can measure again, because its data was never published, is marked.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from cxr_jax.pages import html, tables
from cxr_jax.pages.evidence import Evidence

Column = tuple[str, Mapping[str, str]]
MARK = "\u00a0†"


def section(evidence: Evidence, *others: Evidence) -> str:
    """The published columns of a config, and what each rests on.

    An entry of ``report.published`` has ``name``, ``split`` and ``values`` (class →
    AUROC); where known also ``source``; ``missing``, what nobody has that its films would
    need (a text, or class → text where it concerns some rows); ``dataset`` and
    ``split_sha256`` (as ``split.json`` has it) of its test films, and ``positives``
    (class → films), without which no difference is taken.

    Args:
        evidence: of a run.
        *others: of further runs, such as those on other splits.

    Returns:
        HTML; nothing where the config names no published figures.
    """
    columns = evidence.published
    if not columns:
        return ""
    # Figures of computed films share no column, and no table, with published ones.
    runs = [run for run in (evidence, *others) if not run.phantom]
    if not runs:
        return html.section(
            "Published, ChestX-ray14, not comparable",
            html.paragraph(
                "Real films, other labels, other splits: these figures say what the"
                " papers report, not how this run compares with them."
            ),
            _table(columns, []),
            _basis(columns, []),
        )
    return html.section(
        "Beside published figures",
        html.paragraph(
            "AUROC, ours with 95% intervals. Each column stands on the split named in"
            " its head. Figures of different splits, tasks or data are not subtracted"
            " from each other: there is a difference only where films and labels are"
            " the same."
        ),
        _table(columns, runs),
        _basis(columns, runs),
    )


def same_films(column: Mapping[str, Any], run: Evidence) -> bool:
    """Whether a published column was measured on the films and labels of this run.

    Needs what the column says about itself: its data set, the digest of its test films,
    and the films that each class labels positive.
    """
    result = run.main
    found = result["metrics"]["auroc"]["per_class"]
    counts = column.get("positives") or {}
    return (
        column.get("dataset") == result["dataset"].partition("/")[0]
        and column.get("split_sha256") == result["split_sha256"]
        and all(
            counts.get(name) == found[name]["positives"]
            for name in column["values"]
            if name in found
        )
    )


def _table(columns: Sequence[Mapping[str, Any]], runs: Sequence[Evidence]) -> str:
    blocks = [run.main["metrics"]["auroc"] for run in runs]
    names = dict.fromkeys(n for block in blocks for n in block["per_class"])
    names |= dict.fromkeys(n for column in columns for n in column["values"])
    listed = blocks[0]["mean"]["classes"] if blocks else list(names)
    shown: list[Column] = [
        (_our_head(run), _ours(block)) for run, block in zip(runs, blocks, strict=True)
    ]
    for column in columns:
        shown.append(_published(column, listed))
        shown += [
            (f"Difference\nto {column['name']}", _differences(column, block, listed))
            for run, block in zip(runs, blocks, strict=True)
            if same_films(column, run)
        ]
    rows = [
        [tables.words(name), *(cells.get(name, "–") for _, cells in shown)]
        for name in names
    ]
    mean = tables.MEAN if blocks else "Mean"
    rows.append([mean, *(cells.get(tables.MEAN, "–") for _, cells in shown)])
    caption = (
        f"Published means are of the same {len(listed)} classes as ours."
        if blocks
        else ""
    )
    heads = ["Class", *(head for head, _ in shown)]
    return html.table(heads, rows, caption=caption, total=True)


def _our_head(run: Evidence) -> str:
    who = "Scored" if run.main.get("scored") else "Ours"
    return f"{who}\n{run.passport.get('scheme', 'split unknown')}, {run.main['split']}"


def _ours(block: Mapping[str, Any]) -> dict[str, str]:
    cells = {n: tables.interval(value) for n, value in block["per_class"].items()}
    return cells | {tables.MEAN: tables.interval(block["mean"])}


def _published(column: Mapping[str, Any], listed: Sequence[str]) -> Column:
    values, missing = column["values"], column.get("missing") or {}
    # As many digits as the source gives.
    digits = 3 if all(round(v, 3) == v for v in values.values()) else 4
    rows = missing if isinstance(missing, Mapping) else {}
    cells = {
        name: tables.number(value, digits) + (MARK if name in rows else "")
        for name, value in values.items()
    }
    known = [values.get(name) for name in listed]
    mean = None if not known or None in known else sum(known) / len(known)
    mark = MARK if isinstance(missing, str) else ""
    head = f"{column['name']}{mark}\n{column.get('split', 'split unknown')}"
    return head, cells | {tables.MEAN: tables.number(mean, digits)}


def _differences(
    column: Mapping[str, Any], block: Mapping[str, Any], listed: Sequence[str]
) -> dict[str, str]:
    values = column["values"]
    ours = {n: value["value"] for n, value in block["per_class"].items()}
    both = {n: ours[n] - v for n, v in values.items() if ours.get(n) is not None}
    cells = {name: _signed(value) for name, value in both.items()}
    known = [both.get(name) for name in listed]
    if known and None not in known:
        cells[tables.MEAN] = _signed(sum(known) / len(known))
    return cells


def _signed(value: float) -> str:
    text = f"{value:+.4f}".replace("-", "−")
    return text if float(text[1:]) else text[1:]


def _basis(columns: Sequence[Mapping[str, Any]], runs: Sequence[Evidence]) -> str:
    """What each published column rests on, and why it is not subtracted."""
    rows = []
    for column in columns:
        missing = column.get("missing") or {}
        if isinstance(missing, Mapping):
            words = [f"{tables.words(n)}: {why}" for n, why in missing.items()]
            needs = "; ".join(words)
        else:
            needs = missing
        if runs and any(same_films(column, run) for run in runs):
            same = "yes: difference shown"
        elif column.get("split_sha256"):
            same = "no"
        else:
            same = "not known to be: no difference"
        rows.append(
            [
                column["name"],
                column.get("split", "unknown"),
                same,
                f"† {needs}" if needs else "nothing known to be",
                column.get("source", ""),
            ]
        )
    heads = ["Published", "Split", "Films and labels\nas ours"]
    heads += ["Cannot be measured again without", "Source"]
    return html.table(heads, rows, text=(1, 2, 3, 4))
