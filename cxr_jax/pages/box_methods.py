"""Runs that found boxes side by side, beside rows that look at no film."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from cxr_jax.evaluators.detection_blocks import shown_at
from cxr_jax.pages import evidence as evidences
from cxr_jax.pages import html, tables
from cxr_jax.pages.evidence import Evidence

# Overlaps at which papers print figures.
PRINTED = (0.1, 0.3, 0.5)
ALONE = "The same on films with a box of the class alone; AP ×100."
# Figures of a run by metric: with intervals, or means of chance.
Figures = Mapping[str, Any]


def columns(thresholds: Sequence[float]) -> dict[str, str]:
    """Metric → its head: at the overlaps that papers print, as far as they are there."""
    shown = [t for t in PRINTED if t in thresholds]
    shown = shown or sorted({thresholds[0], shown_at(thresholds), thresholds[-1]})
    heads = {"map": "mAP"} | {f"ap@{t:g}": f"AP\n{t:g}" for t in shown}
    return heads | {f"loc_acc@{t:g}": f"loc-acc\n{t:g}" for t in shown}


def methods(evidence: Evidence, *others: Evidence) -> str:
    """Runs, their means and chance: on all films, and on those with a box of the class.

    Runs on computed films have tables of their own. What papers print stands below.
    """
    runs = [run for run in (evidence, *others) if run.main.get("detection")]
    groups = evidences.apart(*runs)
    groups.sort(key=lambda some: evidence not in some)
    shown = [_table(some, alone=not others) for some in groups]
    published = (evidence.config.get("report") or {}).get("published_boxes") or ()
    return "\n".join([*shown, _published(published)])


def text(evidence: Evidence, *others: Evidence) -> str:
    """Mean AP of boxes for a terminal: runs and rows of chance; "" where none has boxes."""
    lines = []
    for runs in evidences.apart(
        *(run for run in (evidence, *others) if run.main.get("detection"))
    ):
        names = [_name(run, runs[0]) for run in runs]
        lines += _rows(runs, names, {"map": "mAP"}, _all, _chance)
    wide = max((len(name) for name, _ in lines), default=0)
    told = [f"{name.ljust(wide)}  {cell}" for name, cell in lines]
    return "\n".join(["Mean AP of boxes ×100", *told]) if told else ""


def _table(runs: Sequence[Evidence], *, alone: bool) -> str:
    """Two tables of runs on films of one kind.

    Args:
        runs: with boxes.
        alone: whether the page is about one run.
    """
    listed = sorted({t for run in runs for t in _block(run)["thresholds"]})
    shown = columns(listed)
    names = ["This run"] if alone else [_name(run, runs[0]) for run in runs]
    ranked = {k: head for k, head in shown.items() if not _is_accuracy(k)}
    whole = _rows(runs, names, shown, _all, _chance)
    boxed = _rows(runs, names, ranked, _restricted, _restricted_chance)
    units = dict.fromkeys(
        run.main["metrics"]["map"]["mean"]["resampling_unit"] for run in runs
    )
    kind = "Computed films. " if runs[0].phantom and not alone else ""
    caption = (
        f"{kind}Means over the boxed classes, {_films(runs, names)}; AP ×100; 95%"
        f" intervals in brackets, resampling unit: {', '.join(units)}.{_kept(runs, names)}"
    )
    return "\n".join(
        [
            html.table(["", *shown.values()], whole, caption=caption),
            html.table(["", *ranked.values()], boxed, caption=kind + ALONE),
        ]
    )


def _rows(
    runs: Sequence[Evidence],
    names: Sequence[str],
    shown: Mapping[str, str],
    get: Callable[[Evidence], Figures],
    chance: Callable[[Evidence], Mapping[str, Figures]],
) -> list[list[str]]:
    """Runs, means of those that differ in seeds alone, and chance once for each films."""
    rows = [
        [name, *(_cell(get(run).get(k), k) for k in shown)]
        for name, run in zip(names, runs, strict=True)
    ]
    repeated = [some for some in _groups(runs, _but_seeds) if _varied(some)]
    for same in repeated:
        told = f": mean ± sd of {len(same)} runs, other {_varied(same)}"
        name = (same[0].network or same[0].name) + told
        rows.append([name, *(_spread([get(run) for run in same], k) for k in shown)])
    of = dict(zip(map(id, runs), names, strict=True))
    groups = _groups(runs, _judged_on)
    for some in groups:
        whose = (
            f" ({', '.join(of[id(run)] for run in some)})" if len(groups) > 1 else ""
        )
        for row, found in chance(some[0]).items():
            cells = [_cell(found.get(k), k) for k in shown]
            rows.append([row.capitalize() + whose, *cells])
    for some in _distinct([_one_each(same) for same in repeated]):
        told = f": mean ± sd of {len(some)} {_halves(some[0])}"
        for row in chance(some[0]):
            found = [chance(run).get(row, {}) for run in some]
            cells = [_spread(found, k) for k in shown]
            rows.append([row.capitalize() + told, *cells])
    return rows


def _block(run: Evidence) -> Mapping[str, Any]:
    return run.main["detection"]


def _all(run: Evidence) -> Figures:
    return {k: v["mean"] for k, v in run.main["metrics"].items()}


def _restricted(run: Evidence) -> Figures:
    told = _block(run).get("restricted_metrics")
    if told is None:  # Of an earlier result: no intervals.
        return _block(run)["restricted"]
    return {k: v["mean"] for k, v in told.items()}


def _chance(run: Evidence) -> Mapping[str, Figures]:
    return _block(run)["rows"]


def _restricted_chance(run: Evidence) -> Mapping[str, Figures]:
    rows = _block(run)["rows"].items()
    return {row: found["restricted"] for row, found in rows if "restricted" in found}


def _name(run: Evidence, first: Evidence) -> str:
    """What a run is called; mAP over other overlaps is another figure."""
    own = _block(run)["thresholds"]
    if own == _block(first)["thresholds"]:
        return run.name
    return f"{run.name} (mAP over {overlaps(own)})"


def overlaps(thresholds: Sequence[float]) -> str:
    """``IoU 0.1 to 0.7``."""
    first, last = thresholds[0], thresholds[-1]
    return f"IoU {first:g}" + (f" to {last:g}" if last != first else "")


def _films(runs: Sequence[Evidence], names: Sequence[str]) -> str:
    """``880 films``, or how many films each run was judged on."""
    counts: dict[str, list[str]] = {}
    for name, run in zip(names, runs, strict=True):
        counts.setdefault(f"{run.main['n']:,} films", []).append(name)
    if len(_groups(runs, _films_of)) == 1:
        return next(iter(counts))
    told = [f"{count} ({', '.join(whose)})" for count, whose in counts.items()]
    return f"of different films: {', '.join(told)}"


def _kept(runs: Sequence[Evidence], names: Sequence[str]) -> str:
    """Where runs differ in the score above which boxes count."""
    scores = [_block(run)["keep_above"] for run in runs]
    kept = ["any" if score < 0 else f"{score:g}" for score in scores]
    if len(set(kept)) == 1:
        return ""
    told = [f"{score} ({name})" for score, name in zip(kept, names, strict=True)]
    return f" Boxes count for loc-acc above a score of {', '.join(told)}."


def _groups(
    runs: Sequence[Evidence], key: Callable[[Evidence], str]
) -> list[list[Evidence]]:
    groups: dict[str, list[Evidence]] = {}
    for run in runs:
        groups.setdefault(key(run), []).append(run)
    return list(groups.values())


def _films_of(run: Evidence) -> str:
    return json.dumps([run.main["dataset"], run.main["split_sha256"]])


def _judged_on(run: Evidence) -> str:
    """Films and what chance reaches there: of other classes, or by another place, other."""
    block = _block(run)
    return json.dumps([_films_of(run), block["boxed"], block["rows"]], sort_keys=True)


def _but_seeds(run: Evidence) -> str:
    """A config as text, without the seeds of training and of the division."""
    data = {
        k: v for k, v in (run.config.get("data") or {}).items() if k != "split_seed"
    }
    rest = {k: v for k, v in run.config.items() if k not in ("seed", "data")}
    return json.dumps([data, rest], sort_keys=True)


def _varied(same: Sequence[Evidence]) -> str:
    """Which seeds differ; empty where none does."""
    seeds = {run.config.get("seed") for run in same}
    splits = {(run.config.get("data") or {}).get("split_seed") for run in same}
    told = ["training seeds"] if len(seeds) > 1 else []
    told += [_halves(same[0])] if len(splits) > 1 else []
    return " and ".join(told)


def _halves(run: Evidence) -> str:
    data = run.config.get("data") or {}
    scheme = (data.get("evaluation") or {}).get("scheme") or data.get("scheme") or ""
    return f"{'halves' if 'halves' in scheme else 'splits'} (data.split_seed)"


def _one_each(same: Sequence[Evidence]) -> list[Evidence]:
    """A run for each films that they were judged on."""
    return [some[0] for some in _groups(same, _judged_on)]


def _distinct(groups: Sequence[Sequence[Evidence]]) -> list[Sequence[Evidence]]:
    """Those of several films, each collection of films once."""
    found = {
        json.dumps(sorted(map(_judged_on, some))): some
        for some in groups
        if len(some) > 1
    }
    return list(found.values())


def _spread(figures: Sequence[Figures], name: str) -> str:
    found = [_value(of.get(name)) for of in figures]
    if any(value is None for value in found):
        return tables.number(None)
    values = np.array(found, float)
    times, digits = (1, 3) if _is_accuracy(name) else (100, 1)
    mean, sd = times * values.mean(), times * values.std(ddof=1)
    return f"{mean:.{digits}f} ± {sd:.{digits}f}"


def _value(figure: Any) -> float | None:
    return figure["value"] if isinstance(figure, Mapping) else figure


def _cell(figure: Any, name: str) -> str:
    if not isinstance(figure, Mapping):
        return plain(figure, name)
    return with_interval(figure, name)


def _is_accuracy(name: str) -> bool:
    return name.startswith("loc_acc")


def with_interval(value: Mapping[str, Any], name: str) -> str:
    """An AP ×100 with one digit, an accuracy as it is; with its interval."""
    if _is_accuracy(name) or value["value"] is None:
        return tables.or_dash(value)
    scaled = {
        k: None if value.get(k) is None else 100 * value[k]
        for k in ("value", "low", "high")
    }
    return tables.interval(scaled, 1)


def plain(value: float | None, name: str) -> str:
    """The same without an interval."""
    if value is None or _is_accuracy(name):
        return tables.number(value)
    return tables.number(100 * value, 1)


def _published(rows: Sequence[Mapping[str, Any]]) -> str:
    """What papers print, on films that cannot be drawn again."""
    if not rows:
        return ""
    shown = columns(PRINTED)
    cells = [
        [row["name"], *(_printed(row["values"].get(k)) for k in shown)] for row in rows
    ]
    return html.table(
        ["Published", *shown.values()],
        cells,
        caption=f"As printed, not measured here: {rows[0]['source']}; {rows[0]['split']}."
        " No figure above is subtracted from these.",
    )


def _printed(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"
