"""Published figures beside ours, as the paper's table has them.

A column per split. A difference is taken only where the films and their labels are the
same; what nobody can measure again, because its data was never published, is marked.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from cxr_jax.pages import columns, grids, html, tables
from cxr_jax.pages.columns import Part
from cxr_jax.pages.evidence import Evidence
from cxr_jax.pages.grids import Column, Grid
from cxr_jax.predictions import RESEARCH_USE

MARK = "\u00a0†"


def section(evidence: Evidence, *others: Evidence) -> str:
    """The published columns of a config and what each rests on, and runs side by side.

    An entry of ``report.published`` has ``name``, ``split`` and ``values`` (class →
    AUROC); where known also ``source``; ``missing``, what nobody has that its films would
    need (a text, or class → text where it concerns some rows); ``dataset`` and
    ``split_sha256`` (as ``split.json`` has it) of its test films, and ``positives``
    (class → films), without which no difference is taken.

    Args:
        evidence: of the run that the page is about; its published columns are shown.
        *others: of further runs, such as those on other splits.

    Returns:
        HTML; nothing where there is nothing to set beside each other.
    """
    real, computed = _divided(evidence, *others)
    found = evidence.published
    shown = []
    if found and real:
        shown.append(_beside(found, real))
    elif found:
        shown.append(_not_comparable(found))
    elif real and (len(real) > 1 or evidence.phantom):
        made = [_grid((), real)]
        shown.append(_side_by_side("Runs side by side", made, real, ("auroc",)))
    # What the AUROC table of the page has already is not shown again.
    if computed and (len(computed) > 1 or not evidence.phantom):
        metrics = columns.metrics_of(computed)
        made = [columns.phantom_grid(computed, metric) for metric in metrics]
        title = "Runs on computed films, side by side"
        runs = _side_by_side(title, made, computed, metrics)
        shown.insert(0 if evidence.phantom else len(shown), runs)
    return "\n".join(shown)


def text(evidence: Evidence, *others: Evidence) -> str:
    """AUROC for a terminal: ours beside the published columns.

    Runs on computed films stand in a table of their own, beside their ceilings alone.
    """
    real, computed = _divided(evidence, *others)
    found, shown = evidence.published, []
    if real:
        basis = [
            f"{row[0]}: {row[3]}" for row in _rows(found, real) if row[3][:1] == "†"
        ]
        shown.append([_grid(found, real, brief=True), *basis, *columns.remarks(real)])
    if computed:
        grid = columns.phantom_grid(computed, columns.metrics_of(computed)[0])
        shown.insert(
            0 if evidence.phantom else len(shown), [grid, *columns.remarks(computed)]
        )
    blocks = [
        "\n".join([grid.text(), *(line for text in said for line in grids.wrap(text))])
        for grid, *said in shown
    ]
    return "\n\n".join([f"AUROC. {RESEARCH_USE}", *blocks])


def _divided(*runs: Evidence) -> tuple[list[Part], list[Part]]:
    """Figures of computed films share no column, and no table, with real ones."""
    parts = columns.parts_of(runs)
    return [p for p in parts if not p.phantom], [p for p in parts if p.phantom]


def _not_comparable(found: Sequence[Mapping[str, Any]]) -> str:
    return html.section(
        "Published, not comparable",
        html.paragraph(
            "Real films, other labels, other splits: these figures say what the"
            " papers report, not how this run compares with them."
        ),
        _grid(found, []).page(),
        _basis(found, []),
    )


def _beside(found: Sequence[Mapping[str, Any]], parts: Sequence[Part]) -> str:
    return html.section(
        "Beside published figures",
        html.paragraph(
            "AUROC, ours with 95% intervals. Each column stands on the split named in"
            " its head. Figures of different splits, tasks or data are not subtracted"
            " from each other: there is a difference only where films and labels are"
            " the same."
        ),
        _grid(found, parts).page(),
        _apart(parts, "auroc"),
        *map(html.paragraph, columns.remarks(parts)),
        _basis(found, parts),
    )


def _side_by_side(
    title: str, made: Sequence[Grid], parts: Sequence[Part], metrics: Sequence[str]
) -> str:
    shown = [
        piece
        for grid, metric in zip(made, metrics, strict=True)
        for piece in (grid.page(), _apart(parts, metric))
    ]
    return html.section(title, *shown, *map(html.paragraph, columns.remarks(parts)))


def _apart(parts: Sequence[Part], metric: str) -> str:
    """Differences of several runs, folded away."""
    grid = columns.differences_apart(parts, metric)
    return "" if grid is None else html.folded("Differences of these runs", grid.page())


def same_films(column: Mapping[str, Any], result: Mapping[str, Any]) -> bool:
    """Whether a published column was measured on the films and labels of a result.

    Needs what the column says about itself: its data set, the digest of its test films,
    and the films that each class labels positive.
    """
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


def _grid(
    found: Sequence[Mapping[str, Any]], parts: Sequence[Part], *, brief: bool = False
) -> Grid:
    names = columns.names_of(parts, "auroc")
    names = list(dict.fromkeys([*names, *(n for c in found for n in c["values"])]))
    listed = columns.list_of(parts, "auroc") if parts else names
    shown = columns.beside(parts, "auroc", listed) if parts else []
    for column in found:
        shown.append(_published(column, listed))
        for part in parts:
            if same_films(column, part.result):
                whose = f"{part.run.name}\n" if len(parts) > 1 else ""
                cells = columns.differences(
                    part.values("auroc"), column["values"], listed
                )
                shown.append((f"Difference\n{whose}to {column['name']}", cells))
    caption = "AUROC, 95% intervals in brackets. " if brief else ""
    if parts and found:
        caption += (
            f"Published means are of the same {len(listed)} classes as those of the"
            " first column. "
        )
    caption += columns.common(parts) if parts else ""
    mean = tables.MEAN if parts else "Mean"
    return grids.grid(
        names,
        shown,
        mean=mean,
        caption=caption.strip(),
        best=columns.highest(parts, "auroc") if parts else None,
    )


def _published(column: Mapping[str, Any], listed: Sequence[str]) -> Column:
    values, missing = column["values"], column.get("missing") or {}
    # As many digits as the source gives.
    given = (n for n in (2, 3) if all(round(v, n) == v for v in values.values()))
    digits = next(given, 4)
    rows = missing if isinstance(missing, Mapping) else {}
    cells = {
        name: tables.number(value, digits) + (MARK if name in rows else "")
        for name, value in values.items()
    }
    mean = columns.mean_of(values, listed)
    mark = MARK if isinstance(missing, str) else ""
    head = f"{column['name']}{mark}\n{column.get('split', 'split unknown')}"
    return head, cells | {tables.MEAN: tables.number(mean, max(digits, 3))}


def _rows(found: Sequence[Mapping[str, Any]], parts: Sequence[Part]) -> list[list[str]]:
    """What each published column rests on, and why it is not subtracted."""
    rows = []
    for column in found:
        missing = column.get("missing") or {}
        if isinstance(missing, Mapping):
            words = [f"{tables.words(n)}: {why}" for n, why in missing.items()]
            needs = "; ".join(words)
        else:
            needs = missing
        if any(same_films(column, part.result) for part in parts):
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
    return rows


def _basis(found: Sequence[Mapping[str, Any]], parts: Sequence[Part]) -> str:
    heads = ["Published", "Split", "Films and labels\nas ours"]
    heads += ["Cannot be measured again without", "Source"]
    return html.table(heads, _rows(found, parts), text=(1, 2, 3, 4))
