"""How evenly a stratified split divides each label, as a table of the report."""

from collections.abc import Mapping
from typing import Any

from cxr_jax.data.balance import NONE, UNITS
from cxr_jax.pages import html
from cxr_jax.pages.tables import number, words

ALL = "All"


def table(passport: Mapping[str, Any]) -> str:
    """A line per label: how much of it each part has, in films and in patients.

    Args:
        passport: of a split; ``data.balance`` defines its ``balance``.

    Returns:
        HTML; empty where the passport holds no balance.
    """
    balance = passport.get("balance")
    if not balance:
        return ""
    names = list(balance["films"]["classes"])
    rows = [
        [words(name), *(c for unit in UNITS for c in _cells(balance, unit, name))]
        for name in names
    ]
    rows.append([ALL, *(c for unit in UNITS for c in _whole(passport, unit))])
    targets = balance["targets"]
    parts = [f"{part}\n{_percent(share)}" for part, share in targets.items()]
    headers = ["Label", *(h for unit in UNITS for h in (unit.capitalize(), *parts))]
    return html.table(headers, rows, caption=_caption(balance), total=True)


def _caption(balance: Mapping[str, Any]) -> str:
    said = [
        f"{_percent(balance[unit]['deviation'])} for {unit}"
        for unit in UNITS
        if balance[unit]["deviation"] is not None
    ]
    return (
        "How the split divides each label: of all its films, and of all patients who have"
        " it, the share in each part, with the number in brackets. The head gives the"
        " share aimed at. On average over labels and parts a share is away from its aim"
        f" by {' and '.join(said)}, as a share of the aim (the row “{NONE}” left out)."
    )


def _cells(balance: Mapping[str, Any], unit: str, name: str) -> list[str]:
    """How many there are, and each part's share of them."""
    parts = balance[unit]["classes"][name].values()
    return _row([part["count"] for part in parts])


def _whole(passport: Mapping[str, Any], unit: str) -> list[str]:
    key = {"films": "images"}.get(unit, unit)
    return _row([part[key] for part in passport["parts"].values()])


def _row(counts: list[int]) -> list[str]:
    every = sum(counts)
    share = [_percent(n / every if every else None) for n in counts]
    shown = [f"{s} ({n:,})" for s, n in zip(share, counts, strict=True)]
    return [f"{every:,}", *shown]


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{number(100 * share, 1)}%"
