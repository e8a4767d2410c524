"""``python -m data_builders NAME[/CONFIG] --manual_dir=RAW --data_dir=DATA``.

Builds one dataset, or with ``--verify`` checks every digest of a finished one. Neither
TensorFlow nor Beam is imported. Exit codes: 0 done; 1 failed, such as a
full disk; 2 the input is wrong; 75 stopped by a signal (run the same command again).
"""

import argparse
import sys
from collections.abc import Sequence
from typing import NoReturn

from cxr_jax.data import manifest as manifests
from cxr_jax.endings import (
    DONE,
    GO_ON,
    WRONG_INPUT,
    ignore_signals,
    leave_on_signals,
    tell,
)
from cxr_jax.errors import UserError
from data_builders import install, workers


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(
            WRONG_INPUT,
            f"error: {message}; `{self.prog} --help` lists what is allowed\n",
        )


def parser() -> argparse.ArgumentParser:
    """The command line."""
    out = _Parser(
        prog="python -m data_builders",
        allow_abbrev=False,
        description=f"Builds a dataset: {', '.join(install.available())}.",
    )
    out.add_argument("name", metavar="NAME[/CONFIG]", help="such as phantom_chest/tiny")
    out.add_argument("--manual_dir", metavar="RAW", help="folder of the released files")
    out.add_argument(
        "--data_dir",
        metavar="DATA",
        help="where datasets live (default: $TFDS_DATA_DIR or ~/tensorflow_datasets)",
        default=manifests.default_data_dir(),
    )
    out.add_argument("--num_shards", type=_positive, metavar="N", help="record files")
    out.add_argument(
        "--images",
        metavar="FOLDER",
        help="sub-folder of RAW with the films, where there are several",
    )
    out.add_argument(
        "--allow_missing",
        action="store_true",
        help="build although films of the table are absent; they are listed",
    )
    out.add_argument(
        "--max_bad_fraction",
        type=_fraction,
        default=0.0,
        metavar="F",
        help="share of unreadable films that is left out instead of refused",
    )
    out.add_argument(
        "--workers",
        type=_natural,
        default=workers.cores(),
        metavar="N",
        help="processes that read films; 0: none but this (default: the cores)",
    )
    out.add_argument(
        "--verify", action="store_true", help="check the digests of a built dataset"
    )
    return out


def _positive(text: str) -> int:
    if int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text}: a whole number from 1 is allowed")
    return int(text)


def _natural(text: str) -> int:
    if int(text) < 0:
        raise argparse.ArgumentTypeError(f"{text}: a whole number from 0 is allowed")
    return int(text)


def _fraction(text: str) -> float:
    if not 0 <= float(text) <= 1:
        raise argparse.ArgumentTypeError(f"{text}: a number from 0 to 1 is allowed")
    return float(text)


def verify(name: str, data_dir: str) -> None:
    """Checks every digest of a finished dataset and says so."""
    dataset, config = install.find(name)
    folder = manifests.locate(
        f"{dataset.name}/{config}", data_dir=manifests.default_data_dir(data_dir)
    )
    manifest = manifests.verify_digests(folder)
    print(
        f"{folder}: {manifest.records} records in {len(manifest.shards)} shards, sound"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit code."""
    given = vars(parser().parse_args(argv))
    name, data_dir, check = (given.pop(k) for k in ("name", "data_dir", "verify"))
    try:
        if check:
            verify(name, data_dir)
            return DONE
        ready = install.finished(name, data_dir=data_dir)
        folder = ready or install.build(name, data_dir=data_dir, **given)
        manifest = manifests.check_sizes(folder)
    except (UserError, OSError) as error:
        return tell(error)
    state = "is there already" if ready else "built"
    print(
        f"{manifest.name} {manifest.version} {state}: {manifest.records} films, {folder}"
    )
    return DONE


if __name__ == "__main__":
    # A build is there whole or not at all, and films that were read are kept.
    leave_on_signals(GO_ON)
    status = main()
    ignore_signals()
    sys.exit(status)
