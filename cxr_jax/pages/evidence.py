"""What lies in a workdir, as far as a page about it is concerned."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from cxr_jax import box_samples, logbook, passes, sheet
from cxr_jax.box_samples import BoxSamples
from cxr_jax.data import box_files
from cxr_jax.data.box_files import BoxTable
from cxr_jax.errors import DataError
from cxr_jax.passes import Passes
from cxr_jax.samples import Samples, read_samples
from cxr_jax.sheet import Sheet

# The part that a page is about is the first of these that was evaluated, of those that the
# config names if it names any: others are of an earlier time, or judged whoever asks.
HEADLINE_PARTS = ("test", "val", "train")


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Evidence:
    """The files of a run.

    Attributes:
        config: resolved config.
        passport: of the split; empty where there is none.
        lines: of ``metrics.jsonl``.
        results: part → ``result.json``, the headline's part first.
        curves: class → ROC points, of the headline's part.
        samples: films of the headline's part, or None.
        passes: findings of the headline's part pass by pass, or None.
        name: of the run, among those that stand beside it.
        model: what the network is made of, as ``outline`` says; empty where unknown.
        labels: how often each is given, as ``Division.label_counts``; likewise.
        sheet: training films, or None.
        boxes: films of the headline's part with boxes, or None.
        found: all boxes that were found on that part, or None.
    """

    config: Mapping[str, Any]
    passport: Mapping[str, Any]
    lines: Sequence[Mapping[str, Any]]
    results: Mapping[str, Mapping[str, Any]]
    curves: Mapping[str, Mapping[str, Sequence[float]]]
    samples: Samples | None
    passes: Passes | None = None
    name: str = ""
    model: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    labels: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    sheet: Sheet | None = None
    boxes: BoxSamples | None = None
    found: BoxTable | None = None

    @property
    def main(self) -> Mapping[str, Any]:
        """The result the page is about."""
        return next(iter(self.results.values()))

    @property
    def calibrated(self) -> bool:
        """Whether thresholds are known, or what a score means as a probability."""
        platt = self.main.get("calibration", {}).get("platt")
        return bool(platt or self.main.get("operating_points"))

    @property
    def judging(self) -> Mapping[str, Any]:
        """Passport of the split that the results are on: another one's, or the run's."""
        return self.passport.get("evaluation") or self.passport

    @property
    def phantom(self) -> bool:
        """Whether the films are computed: such figures never stand beside real ones."""
        return self.main["dataset"].startswith("phantom")

    @property
    def title(self) -> str:
        """Heading of the page."""
        return self._report.get("title") or self.config.get("name") or "Run"

    @property
    def network(self) -> str:
        """What the config calls its network, for columns of several runs; or empty."""
        return self._report.get("model") or ""

    @property
    def limits(self) -> str:
        """What the model does not see; empty where nobody says, as in a score."""
        return self._report.get("limits") or ""

    @property
    def ceilings(self) -> Mapping[str, float | None]:
        """Class → best possible AUROC against the truth; empty where unknown."""
        return self._report.get("ceilings") or {}

    @property
    def published(self) -> Sequence[Mapping[str, Any]]:
        """Columns of others: ``name``, ``split``, ``values``, and ``source`` if given."""
        return self._report.get("published") or ()

    @property
    def _report(self) -> Mapping[str, Any]:
        return self.config.get("report") or {}


def apart(*runs: Evidence) -> list[list[Evidence]]:
    """Runs on real films, and runs on computed ones: they share no figure."""
    found = [[run for run in runs if run.phantom == kind] for kind in (False, True)]
    return [some for some in found if some]


def read_evidence(workdir: epath.PathLike) -> Evidence:
    """Reads what a page shows.

    Args:
        workdir: with ``evaluation/SPLIT`` of at least one split; ``config.json``,
            ``split.json``, ``model.json``, ``labels.json``, ``metrics.jsonl``,
            ``training_films.npz`` and ``samples.npz`` where there are any.

    Raises:
        DataError: nothing was evaluated yet, or a file is not JSON.
    """
    workdir = epath.Path(workdir)
    if not workdir.exists():
        raise DataError(f"{workdir} does not exist; give the folder of a run")
    folder = workdir / "evaluation"
    folders = sorted(folder.iterdir()) if folder.exists() else []
    found = {f.name: _read_json(f / "result.json") for f in folders}
    found = {name: result for name, result in found.items() if result}
    if not found:
        raise DataError(
            f"{workdir} holds no evaluation/SPLIT/result.json; run --mode=evaluate first"
        )
    config = _read_json(workdir / "config.json")
    asked = config.get("eval", {}).get("splits", ())
    named = sorted((part.replace("/", "-") for part in asked), key=_is_no_test)
    order = [n for n in dict.fromkeys((*named, *HEADLINE_PARTS, *found)) if n in found]
    return Evidence(
        config=config,
        passport=_read_json(workdir / "split.json"),
        lines=logbook.read(workdir),
        results={name: found[name] for name in order},
        curves=_read_json(folder / order[0] / "curves.json").get("roc", {}),
        samples=read_samples(folder / order[0]),
        passes=passes.read(folder / order[0]),
        boxes=box_samples.read(folder / order[0]),
        found=_read_boxes(folder / order[0] / "boxes.csv", found[order[0]], config),
        name=workdir.name,
        model=_read_json(workdir / "model.json"),
        labels=_read_json(workdir / "labels.json"),
        sheet=sheet.read(workdir),
    )


def _is_no_test(part: str) -> bool:
    return part != HEADLINE_PARTS[0]


def _read_boxes(
    path: epath.Path, result: Mapping[str, Any], config: Mapping[str, Any]
) -> BoxTable | None:
    """All boxes of a part; None where none were judged."""
    judged = result.get("detection")
    if not judged or not path.exists():
        return None
    classes = (config.get("task") or {}).get("classes") or judged["boxed"]
    return box_files.read_boxes(path, classes=classes)


def _read_json(path: epath.Path) -> dict[str, Any]:
    """The content of a JSON file; empty where there is none."""
    if not path.exists():
        return {}
    try:
        return json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise DataError(
            f"{path} is not JSON ({error}); remove it and run --mode=evaluate"
        ) from error
