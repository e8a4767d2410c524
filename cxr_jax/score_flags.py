"""The command line of ``python -m cxr_jax.score``."""

import argparse
from collections.abc import Sequence
from typing import NoReturn

from cxr_jax.data import manifest as manifests
from cxr_jax.errors import ConfigError

VALIDATION = "val"
# Flags that say something about predictions, and those about boxes.
OF_PREDICTIONS = ("compare", "validation", "adjudicated", "readers", "columns")
OF_PREDICTIONS += ("mean_classes",)
OF_BOXES = ("reference_boxes", "keep_above")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}; see python -m cxr_jax.score --help")


def parse(argv: Sequence[str], *, about: str) -> argparse.Namespace:
    """The flags of one command.

    Args:
        argv: without the program's name.
        about: one line for ``--help``.

    Raises:
        ConfigError: an unknown flag, or flags that do not go together.
    """
    parser = _Parser(prog="cxr_jax.score", description=about)
    add = parser.add_argument
    add("--predictions", help="CSV: a film a line, a class a column")
    add("--boxes", help="CSV: a predicted box a line, id,class,score,x1,y1,x2,y2")
    add("--labels", required=True, help="chestxray14, NAME/CONFIG, or a CSV file")
    add("--split", help="SCHEME/PART; a CSV file of labels needs no scheme")
    add("--output", required=True, help="folder of the results")
    add("--data_dir", help="prepared datasets; default as TFDS")
    add("--manual_dir", help="folder of a release: its tables alone are read")
    add("--reference_boxes", help="CSV: id,class,x1,y1,x2,y2; with a CSV of labels")
    add("--keep_above", type=float, help="score of boxes that localisation counts")
    add("--compare", help="CSV of another model on the same films")
    add("--margin", type=float, help="of non-inferiority, named beforehand")
    add("--validation", help="CSV of the same model on the validation part")
    add("--adjudicated", help="CSV of labels that readers agreed on")
    add("--readers", help="CSV of readers' calls: id,reader,CLASS,…")
    add("--trained_on", help="a run, or a list of films: those it was made with")
    add("--allow_seen", action="store_true", help="score them all the same")
    add("--classes", type=_names, default=(), help="A,B: those to be scored")
    add("--mean_classes", type=_names, default=(), help="A,B: those of the mean")
    add("--columns", help="header of the classes, such as 'prob_*'")
    add("--allow_extra", action="store_true", help="leave out films not of the part")
    add("--allow_missing", action="store_true", help="leave out films not predicted")
    add("--resamples", type=int, default=1000, help="of the bootstrap; 0 for none")
    add("--seed", type=int, default=0, help="of the bootstrap")
    add("--split_seed", type=int, help="of schemes that draw; else the config's")
    add("--config", help="FILE.py: its published figures, division, reader study")
    found = parser.parse_args(argv)
    _check_files(found)
    if found.resamples < 0:
        raise ConfigError(f"--resamples={found.resamples}: 0 or more is allowed")
    if found.margin is not None and not found.compare:
        raise ConfigError("--margin goes with --compare=Q.csv, which is not given")
    scheme, _, name = (found.split or "").rpartition("/")
    if found.validation and (not scheme or name == VALIDATION):
        raise ConfigError(
            f"--validation needs --split=SCHEME/PART with a part other than {VALIDATION},"
            f" not {found.split}; a file of labels needs a column split_SCHEME for it"
        )
    if found.margin is not None and not found.resamples:
        raise ConfigError("--margin needs intervals; give --resamples above 0")
    return found


def data_dir(flags: argparse.Namespace) -> str | None:
    """Where prepared datasets are; None where a release is given.

    Raises:
        ConfigError: both are given.
    """
    if flags.data_dir or flags.manual_dir:
        if flags.data_dir and flags.manual_dir:
            raise ConfigError(
                "--data_dir and --manual_dir are both given; one is allowed"
            )
        return flags.data_dir
    return manifests.default_data_dir()


def _check_files(flags: argparse.Namespace) -> None:
    """What is to be scored, and flags that go with it."""
    if not flags.predictions and not flags.boxes:
        raise ConfigError(
            "nothing to score: give --predictions=P.csv, --boxes=F.csv, or both"
        )
    for main, others in (("predictions", OF_PREDICTIONS), ("boxes", OF_BOXES)):
        given = [name for name in others if getattr(flags, name) not in (None, ())]
        if given and not getattr(flags, main):
            raise ConfigError(f"--{given[0]} goes with --{main}, which is not given")
    if flags.keep_above is not None and not 0 <= flags.keep_above <= 1:
        raise ConfigError(
            f"--keep_above={flags.keep_above:g}: a score in [0, 1] is allowed"
        )


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())
