"""What the network is made of: a table of its parts, and a drawing of how they connect."""

from collections.abc import Mapping, Sequence
from typing import Any

from cxr_jax.pages import diagram, html
from cxr_jax.pages.evidence import Evidence

Part = Mapping[str, Any]


def section(evidence: Evidence) -> str:
    """Parts, shapes and counts of ``model.json``; nothing where there is none."""
    model = evidence.model
    if not model:
        return ""
    tasks = evidence.config.get("task") or {}
    drawn = diagram.draw(model, classes=len(tasks.get("classes") or ()))
    return html.section(
        "Network",
        html.paragraph(_totals(model)),
        html.figure(
            drawn,
            "The network, drawn from one pass of a film through it: arrows are what each"
            " part reads, with the shape that is read (height × width × features)."
            " Square: weights; round: none."
            + (" Dashed: frozen in phase 1." if _frozen(model) else ""),
            alt="parts of the network and how they connect",
        ),
        _table(model),
        *(_stages(part) for part in model["parts"] if part["stages"]),
    )


def _totals(model: Part) -> str:
    """Counts as Keras gives them, in words."""
    parameters, statistics = model["parameters"], model["statistics"]
    text = (
        f"{parameters + statistics:,} numbers: {parameters:,} parameters and"
        f" {statistics:,} that no gradient trains (batch statistics, constants)."
    )
    trainable = model["trainable"]
    if len(trainable) == 1:
        return f"{text} Trainable: {trainable[0]:,}."
    phases = [f"{n:,} in phase {k}" for k, n in enumerate(trainable, start=1)]
    return f"{text} Trainable: {', '.join(phases)}."


def _frozen(model: Part) -> bool:
    return any(
        part["parameters"] and not part["trainable"][0] for part in model["parts"]
    )


def _table(model: Part) -> str:
    phases = len(model["trainable"])
    heads = ["Part", "Kind", "Reads", "Output", "Parameters", "Not\ntrained"]
    heads += [
        f"Trainable\nin phase {k + 1}" if phases > 1 else "Trainable"
        for k in range(phases)
    ]
    first = ["film", "", "", diagram.times(model["input"]), *[""] * (2 + phases)]
    rows = [first, *(_row(part, _reads(part)) for part in model["parts"])]
    rows.append(_row({"name": "Total", "kind": "", "shape": None, **model}, [""]))
    caption = (
        "Parts in the order of a pass, with the shape that leaves each for one film. Not"
        " trained: batch statistics and constants."
    )
    return html.table(heads, rows, caption=caption, total=True, text=(1, 2))


def _stages(part: Part) -> str:
    phases = len(part["trainable"])
    heads = ["Stage", "Kind", "Output", "Parameters", "Not\ntrained"]
    heads += [
        f"Trainable\nin phase {k + 1}" if phases > 1 else "Trainable"
        for k in range(phases)
    ]
    inside = len(part["name"]) + 1
    rows = [_row(stage | {"name": stage["name"][inside:]}) for stage in part["stages"]]
    return html.folded(f"Stages of {part['name']}", html.table(heads, rows, text=(1,)))


def _reads(part: Part) -> list[str]:
    return [", ".join("film" if name == "input" else name for name in part["inputs"])]


def _row(part: Part, between: Sequence[str] = ()) -> list[str]:
    """Cells; a part without arrays has no numbers."""
    counts = [part["parameters"], part["statistics"], *part["trainable"]]
    cells = [f"{n:,}" if n or part["name"] == "Total" else "–" for n in counts]
    shape = diagram.times(part["shape"] or ())
    return [part["name"], part["kind"], *between, shape, *cells]
