"""How a network was trained: hyper-parameters of the config, beside published ones."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from cxr_jax.pages import html
from cxr_jax.pages.evidence import Evidence

Config = Mapping[str, Any]
NOTHING = ("", 0, (1, 1))  # values of an augmentation that does nothing


def section(evidence: Evidence, *others: Evidence) -> str:
    """A row per hyper-parameter and a column per run; nothing of a scored file.

    ``report.published_hyperparameters`` is a list of pairs, a name and a value. Where the
    name is that of a row here, the value stands in it; else it gets a row of its own.

    Args:
        evidence: of the run that the page is about; what it quotes is shown.
        *others: of further runs.
    """
    runs = [run for run in (evidence, *others) if run.config.get("phases")]
    if evidence not in runs:
        return ""
    columns = [_rows(run.config, run.model) for run in runs]
    heads = ["", *(run.name or "This run" for run in runs)]
    report = evidence.config.get("report") or {}
    published = {n: str(v) for n, v in report.get("published_hyperparameters") or ()}
    if published:
        columns.append(published)
        heads.append("Published")
    names = list(dict.fromkeys(name for column in columns for name in column))
    rows = [[name, *(column.get(name, "–") for column in columns)] for name in names]
    return html.section(
        "Hyper-parameters",
        html.table(heads, rows, text=tuple(range(1, len(heads)))),
    )


def _rows(config: Config, model: Mapping[str, Any]) -> dict[str, str]:
    """Name → value; rows that say nothing are left out."""
    phases, task = config["phases"], config.get("task") or {}
    found = {
        "Network": _last(task.get("model")),
        "Activations": _half((task.get("model") or {}).get("dtype")),
        "Input": " × ".join(map(str, model.get("input") or ())),
        "Initial weights": _start(config.get("pretrained") or {}),
        "Optimizer": _by_phase(phases, lambda p: _part(p["optimizer"])),
        "Metrics": _judged_by(config.get("checkpoint") or {}),
        "Epochs": _epochs(phases),
        **_rates(phases),
        "Schedule": _by_phase(phases, lambda p: _part(p["schedule"])),
        "Frozen": _by_phase(phases, lambda p: ", ".join(p["freeze"]) or "nothing"),
        "Early stopping": _by_phase(phases, _patience),
        "Batch size": _number((config.get("train") or {}).get("batch_size")),
        **_losses(task.get("terms") or ()),
        "Dropout": _dropout(task),
        "Augmentation": _augmentation(config.get("augment") or {}),
        "Monte-Carlo passes": _passes(config.get("eval") or {}),
        "Seed": _number(config.get("seed")),
    }
    return {name: value for name, value in found.items() if value}


def _by_phase(phases: Sequence[Config], told: Callable[[Config], str]) -> str:
    """One value where all phases have it, else one for each."""
    values = [told(phase) for phase in phases]
    if len(set(values)) == 1:
        return values[0]
    return "; ".join(f"phase {k}: {value}" for k, value in enumerate(values, start=1))


def _start(pretrained: Config) -> str:
    """A file for the whole network, one for each of its parts, or none."""
    parts = pretrained.get("parts") or {}
    files = [f"{name}: {p['from']}" for name, p in parts.items() if p.get("from")]
    return pretrained.get("from") or ", ".join(files) or "random"


def _last(part: Config | None) -> str:
    return (part or {}).get("name", "").rpartition(".")[2]


def _part(part: Config) -> str:
    """``sgd (momentum 0.9)``."""
    more = [f"{key} {_number(v)}" for key, v in part.items() if key != "name"]
    return _last(part) + (f" ({', '.join(more)})" if more else "")


def _half(dtype: str | None) -> str:
    """A type other than float32, which goes without saying."""
    return "" if dtype in (None, "float32") else dtype


def _number(value: Any) -> str:
    """As short as it goes; words stay as they are."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return "" if value is None else str(value)
    text = f"{value:,}" if isinstance(value, int) else f"{value:.6g}"
    return text.replace("e-0", "e-")


def _judged_by(checkpoint: Config) -> str:
    if not checkpoint:
        return ""
    best = {"min": "lowest", "max": "highest"}[checkpoint["mode"]]
    return f"{checkpoint['metric']}, {best} on validation"


def _epochs(phases: Sequence[Config]) -> str:
    each = [_number(float(phase["epochs"])) for phase in phases]
    total = _number(float(sum(phase["epochs"] for phase in phases)))
    return total if len(each) == 1 else f"{total} ({' + '.join(each)})"


def _rates(phases: Sequence[Config]) -> dict[str, str]:
    rates = [_number(phase["learning_rate"]) for phase in phases]
    if len(rates) == 1:
        return {"Learning rate": rates[0]}
    return {f"Learning rate, phase {k}": r for k, r in enumerate(rates, start=1)}


def _patience(phase: Config) -> str:
    limit = phase["stop_after"]
    return f"after {limit} validations without improvement" if limit else "none"


def _losses(terms: Sequence[Config]) -> dict[str, str]:
    """A row for each loss, and one for each of its numbers."""
    found = {}
    for term in terms:
        name = "Loss" if len(terms) == 1 else f"Loss: {term['name']}"
        found[name] = _last(term["fn"])
        weight = term.get("weight", 1.0)
        if weight != 1.0:
            changes = isinstance(weight, Mapping)
            found[f"{name}, weight"] = _part(weight) if changes else _number(weight)
        for key, value in term["fn"].items():
            if key != "name":
                found[f"{name}, {key}"] = _number(value)
    return found


def _dropout(task: Config) -> str:
    rates = {part: (task.get(part) or {}).get("dropout") for part in ("model", "head")}
    known = {part: _number(rate) for part, rate in rates.items() if rate is not None}
    if set(known) == {"head"}:
        return known["head"]
    return ", ".join(f"{part} {rate}" for part, rate in known.items())


def _augmentation(augment: Config) -> str:
    words = {
        "safe_crop": lambda v: f"crop that cuts at most {100 * v:g}% off a box",
        "flip": lambda v: f"mirrored in {100 * v:g}%",
        "stretch": lambda v: f"width and height stretched {v[0]:g} to {v[1]:g}",
        "rotation": lambda v: f"rotation ±{v:g}°",
        "shear": lambda v: f"shear ±{v:g}°",
        "zoom": lambda v: f"zoom {v[0]:g} to {v[1]:g}",
        "translate": lambda v: f"shift ±{100 * v:g}%",
        "crop": lambda v: f"crop {100 * v[0]:g}% to {100 * v[1]:g}% of the area",
        "gain": lambda v: f"gain {v[0]:g} to {v[1]:g}",
        "brightness": lambda v: f"brightness ±{v:g}",
        "contrast": lambda v: f"contrast {v[0]:g} to {v[1]:g}",
        "blur": lambda v: f"blur {_blur(augment)}",
    }
    values = {k: tuple(v) if isinstance(v, list) else v for k, v in augment.items()}
    idle = {"safe_crop": (-1,)}
    told = [
        say(values[key])
        for key, say in words.items()
        if key in values and values[key] not in idle.get(key, NOTHING)
    ]
    return ", ".join(told) or "none"


def _blur(augment: Config) -> str:
    least, share = augment.get("blur_from", 0.0), augment.get("blur_share", 1.0)
    range_ = f"{least:g} to {augment['blur']:g} px"
    return range_ + (f" in {100 * share:g}%" if share < 1 else "")


def _passes(evaluation: Config) -> str:
    """Of Monte-Carlo dropout, where there are any."""
    return _number((evaluation.get("mc") or {}).get("samples") or None)
