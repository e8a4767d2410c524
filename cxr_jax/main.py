"""``python -m cxr_jax.main``: from flags to a mode of a run. It wires, and decides nothing.

    python -m cxr_jax.main --config=configs/chexnet.py[:VARIANT,…] [--workdir=RUN]
        [--mode=train|evaluate|report|summary] [--data_dir=DATA] [--config.KEY=VALUE …]
    python -m cxr_jax.main --mode=predict --workdir=RUN|WEIGHTS --inputs FILM … --output=DIR
        [--prevalence=CLASS=SHARE,…] [--overlays] [--samples=T] [--max_std=0.1]
    python -m cxr_jax.main --config=… [--workdir=RUN] --mode=report [--runs=WORKDIR,…]
    python -m cxr_jax.main --mode=export --workdir=RUN --output=FILE.safetensors

Exit codes: 0 done; 1 failed, or a film was rejected; 2 the user's input is wrong (one line on stderr); 75 stopped
by a signal after saving (run the same command again to go on).
"""

import argparse
import logging
import os
import pathlib
import sys
import traceback
from collections.abc import Sequence
from typing import Any, NoReturn

from cxr_jax import config as configs
from cxr_jax import memory
from cxr_jax.endings import (
    DONE,
    FAILED,
    GO_ON,
    STOPPED,
    fail,
    ignore_signals,
    is_full,
    leave_on_signals,
    tell,
)
from cxr_jax.errors import ConfigError, DataError, UserError

MODES = ("train", "evaluate", "predict", "export", "report", "summary")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}; see python -m cxr_jax.main --help")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit code."""
    # Libraries may have put handlers of their own in place while they were imported.
    logging.basicConfig(
        level=logging.WARNING, format="%(levelname)s: %(message)s", force=True
    )
    logging.getLogger("cxr_jax").setLevel(logging.INFO)
    # Orbax logs tracebacks of its threads through absl, and of a failed write's siblings
    # through asyncio; we report the same as one line.
    for name in ("absl", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    sys.unraisablehook = _except_late_callbacks
    try:
        arguments, overrides = _parse(sys.argv[1:] if argv is None else argv)
        return _run(arguments, overrides)
    except (UserError, OSError) as error:
        return tell(error)


def _except_late_callbacks(unraisable: "sys.UnraisableHookArgs") -> None:
    """A save or restore that failed has ended its event loop; its other arrays do not know.

    What TensorStore's threads meet there is nobody's to catch, one traceback per array.
    What made the first one fail is raised where it is waited for.
    """
    error = unraisable.exc_value
    late = isinstance(error, RuntimeError) and str(error) == "Event loop is closed"
    frames = traceback.extract_tb(unraisable.exc_traceback)
    # The same of a sibling that read a damaged file, when its coroutine is dropped.
    sibling = any("orbax" in pathlib.Path(frame.filename).parts for frame in frames)
    if not (late or sibling):
        sys.__unraisablehook__(unraisable)


def _parse(argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    parser = _Parser(prog="cxr_jax.main", description=__doc__.splitlines()[0])
    parser.add_argument("--config", help="FILE.py[:VARIANT,…]; predict, export: none")
    parser.add_argument("--workdir", help="folder of the run; default runs/NAME")
    parser.add_argument("--mode", choices=MODES, default="train")
    parser.add_argument("--data_dir", help="prepared datasets; default as TFDS")
    parser.add_argument("--deterministic", action="store_true", help="on GPUs")
    parser.add_argument("--inputs", nargs="+", default=(), help="films, or folders")
    parser.add_argument("--output", help="folder of predict; file of export")
    parser.add_argument("--prevalence", help="of another site: CLASS=SHARE,…")
    parser.add_argument("--overlays", action="store_true", help="draw the maps")
    parser.add_argument("--samples", type=int, default=0, help="passes with dropout")
    parser.add_argument("--max_std", type=float, help="flag findings of larger spread")
    parser.add_argument("--runs", help="beside the report's: WORKDIR,…")
    own = [a for a in argv if not a.startswith("--config.")]
    overrides = [a.removeprefix("--config.") for a in argv if a.startswith("--config.")]
    arguments = parser.parse_args(own)
    if arguments.runs is not None and arguments.mode != "report":
        parser.error("--runs is of --mode=report")
    if arguments.mode != "predict" and (arguments.samples or arguments.max_std):
        parser.error("--samples and --max_std are of --mode=predict")
    if arguments.samples < 0:
        parser.error(f"--samples={arguments.samples}: give 0 or more")
    if arguments.mode in ("predict", "export") and (arguments.config or overrides):
        parser.error(
            f"--mode={arguments.mode} reads what the workdir says: leave out --config"
        )
    if arguments.mode == "predict":
        needed = ("workdir", "inputs", "output")
    elif arguments.mode == "export":
        needed = ("workdir", "output")
    elif arguments.mode == "report" and arguments.workdir:
        needed = ()  # the files of the workdir say everything
    else:
        needed = ("config",)
    if missing := [f"--{name}" for name in needed if not getattr(arguments, name)]:
        parser.error(f"the following arguments are required: {', '.join(missing)}")
    return arguments, overrides


def _run(arguments: argparse.Namespace, overrides: list[str]) -> int:
    _prepare_jax(arguments.deterministic)
    if arguments.mode == "predict":
        return _predict(arguments)
    if arguments.mode == "report" and not arguments.config:
        return _report(arguments, arguments.workdir)
    if arguments.mode == "export":
        return _export(arguments)
    config = configs.load(arguments.config, overrides)
    words = "-".join((config.name, *config.variants))
    workdir = arguments.workdir or f"runs/{words}"

    # Start JAX only for valid input.
    from cxr_jax import assembly, report, results, run, sharding
    from cxr_jax import workdir as workdirs
    from cxr_jax.data import manifest as manifests
    from cxr_jax.preemption import Stopped, Stopper
    from cxr_jax.train import NonFinite

    if arguments.mode == "summary":
        print(assembly.summary(config))
        return DONE
    if arguments.mode == "report":
        return _report(arguments, workdir)
    if arguments.mode == "evaluate":
        workdirs.begun(workdir)
    sharding.initialize_from_env()
    stopper = Stopper()
    stopper.install()
    data_dir = manifests.default_data_dir(arguments.data_dir)
    _build_phantom(config, data_dir)
    this = run.open_run(config, path=workdir, data_dir=data_dir, stopper=stopper)
    try:
        prepared = None
        if arguments.mode == "train":
            if not workdirs.has_checkpoint(workdir):
                prepared = results.prepare(this)
            run.train(this)
        found = results.evaluate_run(this, prepared)
    except Stopped:
        print(GO_ON, file=sys.stderr)
        return STOPPED
    except NonFinite as error:
        return fail(f"{error}; {run.describe_step(this, error.step)}", FAILED)
    if sharding.layout().index == 0:
        page = report.write_report(workdir)
        print(results.headline(found))
        print(f"report: {page}")
    sharding.wait_for_peers("report")
    return DONE


def _report(arguments: argparse.Namespace, workdir: str) -> int:
    from cxr_jax import report

    runs = [] if arguments.runs is None else arguments.runs.split(",")
    print(report.table_1(workdir, runs))
    print(f"report: {report.write_report(workdir, runs)}")
    return DONE


def _predict(arguments: argparse.Namespace) -> int:
    from cxr_jax import loading, predict_files

    shares = arguments.prevalence and predict_files.parse_prevalence(
        arguments.prevalence
    )
    bar = {} if arguments.max_std is None else {"max_std": arguments.max_std}
    return predict_files.predict_files(
        loading.load(arguments.workdir, batch_size=32),
        arguments.inputs,
        arguments.output,
        prevalence=shares or None,
        overlays=arguments.overlays,
        samples=arguments.samples,
        **bar,
    )


def _export(arguments: argparse.Namespace) -> int:
    from cxr_jax import export

    print(f"weights: {export.export_run(arguments.workdir, arguments.output)}")
    return DONE


def _prepare_jax(deterministic: bool) -> None:
    """What must be said before JAX is imported, as some configs do.

    Freed memory is kept, and compiled programs on disk: a run that goes on starts in seconds.
    """
    memory.keep_freed_memory()
    cache = pathlib.Path.home() / ".cache" / "cxr_jax" / "compiled"
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(cache))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")
    if deterministic:
        flags = os.environ.get("XLA_FLAGS", "")
        os.environ["XLA_FLAGS"] = f"{flags} --xla_gpu_exclude_nondeterministic_ops=true"


def _build_phantom(config: Any, data_dir: str) -> None:
    """Phantoms are computed on first use; real data is prepared by its builder."""
    if not config.data.dataset.startswith("phantom_"):
        return
    import data_builders

    try:
        data_builders.build(
            config.data.dataset, data_dir=data_dir, workers=data_builders.cores()
        )
    except OSError as error:
        if is_full(error):
            raise
        raise DataError(f"--data_dir={data_dir}: {error}") from error


def _leave_peers(code: int) -> None:
    """Ends a failed process of several at once.

    At a normal exit it would wait for peers that wait for it in a collective; so they
    notice within their heartbeat.
    """
    jax = sys.modules.get("jax")
    if code not in (DONE, STOPPED) and jax and jax.distributed.is_initialized():
        sys.stderr.flush()
        os._exit(code)


def command(argv: Sequence[str] | None = None) -> NoReturn:
    """The process: ``main``, and signals before and after it."""
    leave_on_signals()  # Before there is a run, nothing is begun.
    try:
        status = main(argv)
    except Exception:  # noqa: BLE001  printed whole; only the way out differs
        traceback.print_exc()
        status = FAILED
    ignore_signals()
    _leave_peers(status)
    sys.exit(status)


if __name__ == "__main__":
    command()
