"""``report/index.html``: what a run found, on one page that needs no other file.

Only files of the workdir are read, so a report can be made again anywhere.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from cxr_jax.errors import ConfigError
from cxr_jax.pages import (
    adjudicated,
    balance,
    box_methods,
    comparison,
    curves,
    detection,
    distribution,
    figures,
    html,
    localization,
    network,
    probabilities,
    published,
    rare,
    readers,
    recipe,
    regions,
    studies,
    subgroups,
    tables,
    training,
    training_films,
    uncertainty,
    worklist,
)
from cxr_jax.pages.evidence import Evidence, read_evidence
from cxr_jax.pages.gallery import gallery
from cxr_jax.pages.pipeline import pipeline
from cxr_jax.predictions import RESEARCH_USE, write_atomically
from cxr_jax.samples import MOST_VIEWS

MAP_LIMITS = (
    "An activation map shows influence on the score, not the extent of a finding."
)
BOX_LIMITS = (
    "A box says where a program places a finding, not how far it reaches. A film without"
    " a box is not a normal film."
)
SCORE_LIMITS = (
    "A low score is a score below others, not a normal film. Scores are as the model gives"
    " them; what they mean as probabilities is"
)
# Figures of the first lines → their words, what they are taken against, and a factor.
CARDS = {
    "auroc@truth": ("Mean AUROC", "the true state", 1),
    "auroc": ("Mean AUROC", "the labels", 1),
    "average_precision@truth": ("Mean AP", "the true state", 1),
    "average_precision": ("Mean AP", "the labels", 1),
    "map": ("Mean AP of boxes ×100", "reference boxes", 100),
}


def write_report(
    workdir: epath.PathLike, runs: Sequence[epath.PathLike] = ()
) -> epath.Path:
    """Writes the page of a run; for process 0 alone.

    Args:
        workdir: see ``pages.evidence.read_evidence``.
        runs: further workdirs, whose figures stand beside those of the run.

    Returns:
        ``WORKDIR/report/index.html``.

    Raises:
        ConfigError: a further workdir that is not there.
        DataError: nothing was evaluated yet, or a file is not JSON.
    """
    text = render(*_read(workdir, runs))
    target = epath.Path(workdir) / "report" / "index.html"
    target.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(target, text)
    return target


def table_1(workdir: epath.PathLike, runs: Sequence[epath.PathLike] = ()) -> str:
    """AUROC of runs beside published figures, and mean AP of their boxes, as plain text.

    Takes and raises what ``write_report`` does.
    """
    read = _read(workdir, runs)
    return "\n\n".join(filter(None, [published.text(*read), box_methods.text(*read)]))


def _read(workdir: epath.PathLike, runs: Sequence[epath.PathLike]) -> list[Evidence]:
    """What lies in each workdir, once, under names that tell them apart."""
    for run in runs:
        if not str(run) or not epath.Path(run).is_dir():
            raise ConfigError(f"--runs: {str(run)!r} is not a folder; give workdirs")
    paths = [epath.Path(path).resolve() for path in (workdir, *runs)]
    paths = list(dict.fromkeys(paths))
    longest = max(len(path.parts) for path in paths)
    for depth in range(1, longest + 1):
        names = ["/".join(path.parts[-depth:]) for path in paths]
        if len(set(names)) == len(names):
            break
    found = [read_evidence(path) for path in paths]
    return [
        dataclasses.replace(run, name=name)
        for run, name in zip(
            found, _named([r.network for r in found], names), strict=True
        )
    ]


def _named(networks: Sequence[str], names: Sequence[str]) -> list[str]:
    """Runs are called by their networks, and by their folders where those are not enough."""
    return [
        f"{network} ({name})"
        if network and networks.count(network) > 1
        else network or name
        for network, name in zip(networks, names, strict=True)
    ]


def render(evidence: Evidence, *others: Evidence) -> str:
    """The page as text: the result first, then what it rests on."""
    parts = (
        _header(evidence),
        _auroc(evidence),
        studies.section(evidence),
        published.section(evidence, *others),
        comparison.section(evidence),
        adjudicated.section(evidence),
        _precision(evidence),
        distribution.section(evidence),
        training_films.section(evidence),
        network.section(evidence),
        recipe.section(evidence, *others),
        training.section(evidence, *others),
        curves.section(evidence, *others),
        readers.section(evidence),
        rare.section(evidence, *others),
        probabilities.section(evidence),
        uncertainty.section(evidence),
        worklist.section(evidence),
        subgroups.section(evidence),
        detection.section(evidence, *others),
        regions.section(evidence),
        localization.section(evidence),
        _gallery(evidence),
        _split(evidence),
        _run(evidence),
    )
    head, *sections = parts
    body = "\n".join(sections)
    return html.document(
        f"{evidence.title}: report", "\n".join([head, html.contents(body), body])
    )


def _header(evidence: Evidence) -> str:
    result, scheme = evidence.main, evidence.judging.get("scheme", "unknown")
    metrics = result["metrics"]
    names = [name for name in CARDS if name in metrics]
    if "average_precision@truth" in names:
        names.remove("average_precision")
    cards = "".join(_card(name, metrics[name]["mean"]) for name in names)
    return "\n".join(
        [
            "<header>",
            html.heading(evidence.title, level=1),
            html.paragraph(
                f"{result['dataset']} · {result['split']} part, {result['n']:,} films ·"
                f" split {scheme} · {_made_by(result)}"
            ),
            "</header>",
            html.paragraph(RESEARCH_USE, kind="banner"),
            f'<div class="cards">{cards}</div>',
            *(html.paragraph(_mean_words(metrics[name]["mean"])) for name in names[:1]),
            *(html.paragraph(n) for n in result["notes"] if n != RESEARCH_USE),
            html.paragraph(" ".join(_limits(evidence)), kind="note"),
        ]
    )


def _limits(evidence: Evidence) -> list[str]:
    """What a reader must not take figures and pictures for, of those that are there."""
    result, said = evidence.main, [evidence.limits] if evidence.limits else []
    if "localization" in result or evidence.samples is not None:
        said.append(MAP_LIMITS)
    if "detection" in result:
        said.append(BOX_LIMITS)
    if "auroc" in result["metrics"]:
        where = "unknown: none was calibrated."
        if evidence.calibrated:
            where = "a section of its own, below."
        said.append(f"{SCORE_LIMITS} {where}")
    return said


def _made_by(result: Mapping[str, Any]) -> str:
    """The weights, or the files of another program."""
    if scored := result.get("scored"):
        files = {"predictions": scored, "boxes": scored.get("boxes", {})}
        return "; ".join(
            f"{what} of {epath.Path(about['file']).name}, SHA-256 {about['sha256'][:16]}"
            for what, about in files.items()
            if "file" in about
        )
    weights = (result["weights_sha256"] or "unknown")[:16]
    return f"checkpoint of step {result['checkpoint_step']}, weights {weights}"


def _card(name: str, mean: Mapping[str, Any]) -> str:
    words, against, factor = CARDS[name]
    digits = 3 if factor == 1 else 1
    value, low, high = (
        None if mean[key] is None else factor * mean[key]
        for key in ("value", "low", "high")
    )
    many = len(mean["classes"])
    below = [mean["reason"] or f"over {many} class{'es' if many != 1 else ''}"]
    if low is not None:
        ends = f"{tables.number(low, digits)} – {tables.number(high, digits)}"
        unit = f"resampling unit: {mean['resampling_unit']}"
        below = [f"95% interval {ends}", unit, *below]
    return html.card(f"{words}, against {against}", tables.number(value, digits), below)


def _mean_words(mean: Mapping[str, Any]) -> str:
    listed = ", ".join(map(tables.words, mean["classes"]))
    text = f"Means run over: {listed}."
    if mean["left_out"]:
        left = [f"{tables.words(n)} ({why})" for n, why in mean["left_out"].items()]
        text += f" Left out: {', '.join(left)}."
    if mean["resamples"]:
        text += (
            f" Intervals: percentile bootstrap, {mean['resamples']:,} resamples,"
            f" resampling unit: {mean['resampling_unit']}; {mean['discarded']:,} resamples"
            " discarded for the mean."
        )
    return text


def _auroc(evidence: Evidence) -> str:
    metrics = evidence.main["metrics"]
    if "auroc" not in metrics:
        return ""
    labels, truth = metrics["auroc"], metrics.get("auroc@truth")
    blocks = [b["per_class"] | {tables.MEAN: b["mean"]} for b in (truth, labels) if b]
    caption = "AUROC per class, with 95% intervals."
    if evidence.ceilings:
        caption += (
            " The ceiling is what an oracle that knows the severity of each finding"
            " reaches on films of this size, against the true state."
        )
    drawing = figures.intervals(
        list(blocks[0].items()),
        other=blocks[1] if truth else None,
        ceilings=evidence.ceilings,
        names=("against truth" if truth else "against labels", "against labels"),
    )
    return html.section(
        "AUROC per class",
        html.figure(drawing, caption, alt="AUROC and interval of each class"),
        tables.auroc_table(evidence),
    )


def _precision(evidence: Evidence) -> str:
    if "average_precision" not in evidence.main["metrics"]:
        return ""
    return html.section("Average precision", tables.precision_table(evidence))


def _gallery(evidence: Evidence) -> str:
    if evidence.samples is None:
        return ""
    truth = "auroc@truth" in evidence.main["metrics"]
    views, how = "", ""
    if "studies" in evidence.main:
        how = _pipeline(evidence)
        views = (
            " Studies were chosen, by their scores, and are shown view by view, at most"
            f" {MOST_VIEWS}; each map is of its own view."
        )
    return html.section(
        "Sample films",
        html.paragraph(
            "Chosen by rule: of each class shown, the highest-scored positive, the"
            " lowest-scored positive and the highest-scored negative"
            f" ({'by the true state' if truth else 'by the labels'}); classes evenly"
            f" spaced from the best AUROC to the worst.{views} Left the film, right the class"
            " activation map over it where it speaks for the class; frames are"
            " reference boxes."
        ),
        how,
        gallery(
            evidence.samples,
            films=evidence.main["n"],
            points=evidence.main.get("operating_points") or {},
        ),
    )


def _pipeline(evidence: Evidence) -> str:
    """The way of one study through the model."""
    task = evidence.config.get("task") or {}
    name = (task.get("model") or {}).get("name", "the network").rpartition(".")[2]
    decision = evidence.main.get("decision") or {}
    return pipeline(evidence.samples, network=name, threshold=decision.get("threshold"))


def _split(evidence: Evidence) -> str:
    return html.section(
        "Parts and split passport",
        tables.parts_table(evidence.results),
        *tables.passport_tables(evidence.passport),
        balance.table(evidence.passport),
    )


def _run(evidence: Evidence) -> str:
    config = json.dumps(evidence.config, indent=1, ensure_ascii=False)
    return html.section(
        "Config and environment",
        tables.pairs_table(evidence.main.get("environment", {})),
        html.details("Resolved config", config),
    )
