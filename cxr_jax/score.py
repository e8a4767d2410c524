"""``python -m cxr_jax.score``: any model's predictions or boxes, scored as a run is.

    python -m cxr_jax.score [--predictions=P.csv] [--boxes=F.csv] --labels=DATASET|L.csv
        --split=SCHEME/PART --output=DIR [--data_dir=DATA | --manual_dir=RAW]
        [--reference_boxes=B.csv] [--keep_above=0.7] [--trained_on=RUN|IDS.txt]
        [--compare=Q.csv [--margin=0.02]] [--validation=V.csv] [--adjudicated=A.csv]
        [--readers=R.csv] [--config=configs/chexnet.py]

Exit codes: 0 done; 2 the user's input is wrong (one line on stderr).
"""

import argparse
import json
import os
import pathlib
import sys
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax

from cxr_jax import (
    evaluate,
    report,
    results,
    score_boxes,
    score_flags,
    score_inputs,
    scoring,
)
from cxr_jax.data import labelled
from cxr_jax.endings import DONE, tell
from cxr_jax.errors import ConfigError, UserError
from cxr_jax.evaluators.base import Evaluator
from cxr_jax.evaluators.classification import Classification
from cxr_jax.evaluators.probabilities import Probabilities
from cxr_jax.evaluators.subgroups import Subgroups
from cxr_jax.predictions import write_atomically

NAME = "score"
# What every table of predictions is judged by, whoever made it.
EVALUATORS: tuple[type[Evaluator], ...] = (Classification, Probabilities, Subgroups)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit code."""
    argv = sys.argv[1:] if argv is None else list(argv)
    try:
        flags = score_flags.parse(argv, about=__doc__.splitlines()[0])
        _keep_compiled()
        _score(flags, argv)
    except (UserError, OSError) as error:
        return tell(error)
    return DONE


def _keep_compiled() -> None:
    """Compiled programs are kept where those of runs are, unless the user says where.

    JAX is imported by now, and looks at its variables no more.
    """
    if not jax.config.jax_compilation_cache_dir:
        cache = pathlib.Path.home() / ".cache" / "cxr_jax" / "compiled"
        jax.config.update("jax_compilation_cache_dir", str(cache))
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)


def _score(flags: argparse.Namespace, argv: Sequence[str]) -> None:
    """Everything is read and judged before the first file is written."""
    output = _output(flags.output)
    given = score_inputs.read(flags)
    kinds = EVALUATORS if flags.predictions else ()
    evaluators: list[Evaluator] = [kind(**given.settings) for kind in kinds]
    more = score_inputs.beside(given)
    scored = {given.part.name: (given.ours, [*evaluators, *more])}
    frozen = given.usual
    if flags.validation:
        name, table = score_inputs.validation(given)
        frozen = evaluate.freeze(evaluators, table.table) | given.usual
        scored = {name: (table, evaluators), **scored}
    judge = partial(
        _judge, source=given.source, frozen=frozen or None, settings=given.settings
    )
    judged = {name: judge(name, *about) for name, about in scored.items()}
    judged[given.part.name]["notes"] += given.said
    about = _about(argv, given)
    _write_about(output, {"config.json": about, "split.json": given.part.passport})
    for name, result in judged.items():
        folder = output / "evaluation" / name
        evaluate.write_evaluation(folder, scored[name][0].table, result)
    page = report.write_report(output)
    print("\n".join([results.headline(judged), *_said(judged[given.part.name])]))
    print(f"report: {page}")


def _about(argv: Sequence[str], given: score_inputs.Given) -> dict[str, Any]:
    """The content of ``config.json``."""
    files = (given.flags.predictions, given.flags.boxes)
    names = [pathlib.Path(path).name for path in files if path]
    source, shown = given.source, given.shown
    return {
        "schema": evaluate.SCHEMA,
        "name": NAME,
        "command": ["python", "-m", "cxr_jax.score", *argv],
        "labels": {
            "dataset": source.dataset,
            "file": source.file,
            "sha256": source.sha256,
        },
        "files": given.files,
        "eval": given.settings,
        "report": {
            "title": f"Score of {' and '.join(names)}",
            "published": shown["published"],
            "published_boxes": shown["published_boxes"],
        },
    }


def _judge(
    name: str,
    scored: scoring.Scored,
    evaluators: Sequence[Evaluator],
    *,
    source: labelled.LabelSource,
    frozen: dict[str, Any] | None,
    settings: dict[str, Any],
) -> dict[str, Any]:
    """The content of ``result.json`` of one part."""
    result = evaluate.evaluate_table(
        scored.table,
        dataset=source.dataset,
        split=name,
        split_sha256=scored.sha256,
        checkpoint_step=None,
        weights_sha256=None,
        evaluators=evaluators,
        reference=scoring.reference(source),
        frozen=frozen,
    )
    result["notes"] += scoring.remarks(scored)
    more = {"frozen": frozen, "settings": settings, "scored": scored.passport}
    return result | more


def _output(path: str) -> pathlib.Path:
    """The folder, if nothing but an earlier score is in it; its results are removed."""
    folder = pathlib.Path(path).expanduser()
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"--output={path} is a file; give a folder")
    if folder.exists() and any(folder.iterdir()):
        about = folder / "config.json"
        try:
            name = json.loads(about.read_text()).get("name") if about.exists() else None
        except ValueError:
            name = None
        if name != NAME:
            raise ConfigError(
                f"--output={path} holds files that are no score's; give a folder of its own"
            )
    return folder


def _write_about(output: pathlib.Path, files: dict[str, Any]) -> None:
    """What was scored, and how; earlier results of this folder go first."""
    for old in output.glob("evaluation/*/*"):
        old.unlink()
    for old in output.glob("evaluation/*"):
        old.rmdir()
    output.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        write_atomically(output / name, json.dumps(content, indent=1) + "\n")


def _said(result: dict[str, Any]) -> list[str]:
    """The boxes, the comparison and the adjudicated figures in a few words."""
    lines = [*score_boxes.words(result)]
    if found := result.get("comparison"):
        mean = found["metrics"]["auroc"]["mean"]
        lines.append(
            f"{found['names'][0]} against {found['names'][1]}: mean auroc"
            f" {mean['ours']:.4f} and {mean['theirs']:.4f}: {mean['verdict']}"
            if mean["value"] is not None
            else f"comparison: {mean['reason']}"
        )
    if found := result.get("readers"):
        lines.append(
            f"{len(found['readers'])} readers read {found['films']} of the films"
            if found["reason"] is None
            else f"readers: {found['reason']}"
        )
    if found := result.get("adjudicated"):
        pair = [found[key]["auroc"]["mean"]["value"] for key in ("metrics", "mined")]
        values = ["undefined" if v is None else f"{v:.4f}" for v in pair]
        lines.append(
            f"on {found['n']} adjudicated films: mean auroc {values[0]} against"
            f" adjudicated labels, {values[1]} against the usual ones"
        )
    return lines


if __name__ == "__main__":
    sys.exit(main())
