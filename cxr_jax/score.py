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
    box_scoring,
    evaluate,
    report,
    results,
    score_boxes,
    score_flags,
    scoring,
    trained_on,
)
from cxr_jax import config as configs
from cxr_jax.data import labelled, leakage, parts
from cxr_jax.errors import ConfigError, UserError
from cxr_jax.evaluators.adjudicated import Adjudicated
from cxr_jax.evaluators.base import Evaluator
from cxr_jax.evaluators.classification import Classification
from cxr_jax.evaluators.comparison import Comparison
from cxr_jax.evaluators.detection import Detection
from cxr_jax.evaluators.probabilities import Probabilities
from cxr_jax.evaluators.readers import Readers
from cxr_jax.evaluators.subgroups import Subgroups
from cxr_jax.predictions import write_atomically

DONE, WRONG_INPUT = 0, 2
NAME = "score"
# What every table of predictions is judged by, whoever made it.
EVALUATORS: tuple[type[Evaluator], ...] = (Classification, Probabilities, Subgroups)
UNCHECKED = (
    "Not known which films the model was trained on; leakage was not checked"
    " (--trained_on)."
)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit code."""
    argv = sys.argv[1:] if argv is None else list(argv)
    try:
        flags = score_flags.parse(argv, about=__doc__.splitlines()[0])
        _keep_compiled()
        _score(flags, argv)
    except UserError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return WRONG_INPUT
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
    shown, output = _shown(flags), _output(flags.output)
    source = labelled.read_source(
        flags.labels,
        data_dir=score_flags.data_dir(flags),
        manual_dir=flags.manual_dir,
        classes=flags.classes or None,
    )
    take = partial(parts.take_part, source, drawing=shown["drawing"])
    part = take(flags.split)
    read = partial(scoring.read_scored, source=source, rules=_rules(flags))
    if flags.predictions:
        ours = read(flags.predictions, part=part)
        files, kinds = {"predictions": ours.passport}, EVALUATORS
    else:
        classes = box_scoring.classes_of(source, flags.classes)
        ours = scoring.unpredicted(source, part, classes)
        files, kinds = {}, ()
    said = _unseen(flags, ours, source, leakage.USED)
    settings = {
        "mean_classes": flags.mean_classes or _held(shown["mean_classes"], ours),
        "resamples": flags.resamples,
        "seed": flags.seed,
    }
    Classification(**settings).listed(ours.table.classes)
    more: list[Evaluator] = []
    usual: dict[str, Any] = {}
    if flags.boxes:
        detection = Detection(**shown["detection"] | settings)
        ours, usual = score_boxes.read(
            _box_files(flags),
            ours,
            source=source,
            part=part,
            validation=parts.validation_of(part, flags.split, take),
            detection=detection,
        )
        files["boxes"] = ours.passport["boxes"]
        said += box_scoring.remarks(ours.passport["boxes"])
        more.append(detection)
    if flags.compare:
        theirs = read(flags.compare, part=part)
        files["compare"] = theirs.passport
        more.append(_comparison(flags, ours, theirs, settings))
    if flags.adjudicated:
        found = scoring.read_adjudicated(flags.adjudicated, source, ours)
        name = pathlib.Path(flags.adjudicated).name
        more.append(Adjudicated(labels=found, name=name, **settings))
    if flags.readers:
        known = frozenset(source.records.id.tolist())
        asked = shown["readers"] | {"file": flags.readers, "films": known} | settings
        readers = Readers(**asked)
        readers.rehearse(ours.table)
        files["readers"] = {"file": flags.readers, "sha256": readers.inputs()["file"]}
        more.append(readers)
    evaluators = [kind(**settings) for kind in kinds]
    scored, frozen = {part.name: (ours, [*evaluators, *more])}, usual
    if flags.validation:
        val = f"{flags.split.rpartition('/')[0]}/{score_flags.VALIDATION}"
        val = take(val)
        table = read(flags.validation, part=val)
        files["validation"] = table.passport
        _unseen(flags, table, source, ("train",))
        frozen = evaluate.freeze(evaluators, table.table) | usual
        scored = {val.name: (table, evaluators), **scored}
    judge = partial(_judge, source=source, frozen=frozen or None, settings=settings)
    judged = {name: judge(name, *about) for name, about in scored.items()}
    given = [pathlib.Path(p).name for p in (flags.predictions, flags.boxes) if p]
    about = {
        "schema": evaluate.SCHEMA,
        "name": NAME,
        "command": ["python", "-m", "cxr_jax.score", *argv],
        "labels": {
            "dataset": source.dataset,
            "file": source.file,
            "sha256": source.sha256,
        },
        "files": files,
        "eval": settings,
        "report": {
            "title": f"Score of {' and '.join(given)}",
            "published": shown["published"],
            "published_boxes": shown["published_boxes"],
        },
    }
    judged[part.name]["notes"] += said
    _write_about(output, {"config.json": about, "split.json": part.passport})
    for name, result in judged.items():
        folder = output / "evaluation" / name
        evaluate.write_evaluation(folder, scored[name][0].table, result)
    page = report.write_report(output)
    print("\n".join([results.headline(judged), *_said(judged[part.name])]))
    print(f"report: {page}")


def _unseen(
    flags: argparse.Namespace,
    scored: scoring.Scored,
    source: labelled.LabelSource,
    against: Sequence[str],
) -> list[str]:
    if not flags.trained_on:
        return [UNCHECKED]
    return trained_on.check_unseen(
        scored.table,
        source,
        flags.trained_on,
        allowed=flags.allow_seen,
        against=against,
    )


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


def _box_files(flags: argparse.Namespace) -> score_boxes.Files:
    return score_boxes.Files(
        boxes=flags.boxes,
        references=flags.reference_boxes,
        manual_dir=flags.manual_dir,
        extra=flags.allow_extra,
        chosen=bool(flags.classes),
    )


def _rules(flags: argparse.Namespace) -> scoring.Rules:
    return scoring.Rules(
        extra=flags.allow_extra,
        missing=flags.allow_missing,
        classes=flags.classes,
        columns=flags.columns,
    )


def _comparison(
    flags: argparse.Namespace,
    ours: scoring.Scored,
    theirs: scoring.Scored,
    settings: dict[str, Any],
) -> Comparison:
    scores, both = scoring.beside(ours, theirs)
    names = [pathlib.Path(p).name for p in (flags.predictions, flags.compare)]
    if names[0] == names[1]:
        names = [f"{names[0]} (ours)", f"{names[1]} (theirs)"]
    return Comparison(
        theirs=scores,
        rows=both,
        names=(names[0], names[1]),
        margin=flags.margin,
        **settings,
    )


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


def _shown(flags: argparse.Namespace) -> dict[str, Any]:
    """What a config says: published figures, the list of the mean, protocols, division."""
    found = None if flags.config is None else configs.plain(configs.load(flags.config))
    about: dict[str, Any] = {"published": (), "published_boxes": (), "mean_classes": ()}
    about |= {"readers": {}, "detection": {}}
    if found:
        about |= {k: found["report"][k] for k in ("published", "published_boxes")}
        about["mean_classes"] = found["eval"]["mean_classes"]
        about |= {"readers": _said_of(Readers, found)}
        about |= {"detection": _said_of(Detection, found)}
        about["detection"].pop("boxed", None)  # --classes says which.
    if flags.keep_above is not None:
        about["detection"] |= {"keep_above": flags.keep_above}
    seed, made_with = flags.split_seed, flags.trained_on
    return about | {"drawing": trained_on.drawing_of(found, made_with, seed=seed)}


def _said_of(kind: type[Evaluator], config: dict[str, Any]) -> dict[str, Any]:
    """The settings that a config gives an evaluator, if it names it."""
    name = f"{kind.__module__}.{kind.__qualname__}"
    told = [spec for spec in config["eval"]["evaluators"] if spec["name"] == name]
    return {k: v for spec in told[-1:] for k, v in spec.items() if k != "name"}


def _held(names: Sequence[str], scored: scoring.Scored) -> tuple[str, ...]:
    """A config's list, as far as these classes are scored."""
    return tuple(name for name in names if name in scored.table.classes)


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
