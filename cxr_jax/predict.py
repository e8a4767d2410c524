"""Films in, findings out: a network outside of training.

Films go through the task's own ``predict`` in batches of one shape, so that nothing is
compiled twice, whatever their number and size.
"""

import dataclasses
import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

import jax
import numpy as np

from cxr_jax import intake, sampled
from cxr_jax.data.image import Fit
from cxr_jax.errors import ConfigError, InputRejected
from cxr_jax.finding import Finding
from cxr_jax.intake import Reduced, Source
from cxr_jax.metrics import scaling
from cxr_jax.models.state import Arrays, ModelDef
from cxr_jax.predictions import MAX_STD
from cxr_jax.tasks.base import Task, traits
from cxr_jax.types import Batch, Prediction

Prevalence = float | Mapping[str, float]
# What the kinds of maps are, on a scale beside them.
UNITS = {"cam": "CAM, in logits", "grad_cam": "Grad-CAM"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scales:
    """What turns scores into readings, per class, as frozen on validation films.

    Attributes:
        platt: class → scaling; a class that is missing has none.
        thresholds: class → operating point on raw outputs (Youden's), likewise.
        missing: why there is nothing at all; empty where there is something.
    """

    platt: Mapping[str, scaling.Platt] = dataclasses.field(default_factory=dict)
    thresholds: Mapping[str, float] = dataclasses.field(default_factory=dict)
    missing: str = ""


class Predictor:
    """A network that reads films.

    Args:
        task: says how.
        params: of its network.
        rest: its batch statistics.
        size: side in pixels that films are reduced to.
        fit: of a film that is not square, see ``image.reduce_film``.
        enlarge: whether smaller films are taken, likewise.
        scales: calibration and thresholds.
        about: where it comes from, for people.
        batch_size: films that go through the network together.
    """

    def __init__(
        self,
        *,
        task: Task,
        params: Arrays,
        rest: Arrays,
        size: int,
        scales: Scales,
        about: Mapping[str, Any],
        batch_size: int,
        fit: Fit = "stretch",
        enlarge: bool = False,
    ):
        self.classes, self.size = tuple(task.classes), size
        self.fit, self.enlarge = fit, enlarge
        self.scales, self.about, self.batch_size = scales, dict(about), batch_size
        self._task, self._arrays = task, (params, rest)
        self._model_def = ModelDef.of(task.create)

        def forward(arrays, batch: Batch, key, samples: int) -> Prediction:
            model = self._model_def.merge(*arrays)
            if not samples:
                return task.predict(model, batch)
            # Thresholds and calibration belong to the scores as they were evaluated.
            return sampled.beside_plain(task, model, batch, key=key, samples=samples)

        self._forward = jax.jit(forward, static_argnames="samples")

    def __repr__(self) -> str:
        known = sum(p.slope is not None for p in self.scales.platt.values())
        return (
            f"Predictor of {len(self.classes)} classes on films of {self.size} px, from"
            f" {self.about['source']}; {known} classes are calibrated"
        )

    def predict(
        self,
        films: Source | Sequence[Source],
        *,
        maps: bool = True,
        prevalence: Prevalence | None = None,
        samples: int = 0,
        seed: int = 0,
        max_std: float = MAX_STD,
        on_error: Literal["raise", "collect"] = "raise",
    ) -> Any:
        """Reads one film, or a list of them.

        Args:
            films: a path of a PNG or JPEG file, the bytes of one, or a float array
                ``[H, W]`` in [0, 1]; or a list or tuple of them.
            maps: whether findings carry the maps of their classes.
            prevalence: share of positives at another site: one number per class named,
                or a single number where there is one class. Odds are re-weighted.
            samples: passes with a dropout mask each, for ``std`` and ``information``;
                0 for those of the run's evaluation, if it had any. Films that are read
                together and apart see the same masks.
            seed: of the masks.
            max_std: above this spread a finding is flagged.
            on_error: for a list: ``raise`` the first film that is refused, or
                ``collect`` its ``InputRejected`` in its place.

        Returns:
            A ``Finding``; for a list, a list of them in the same order.

        Raises:
            InputRejected: a film was refused; the message names it.
            ConfigError: a prevalence, ``samples``, ``max_std`` or ``on_error`` that
                cannot be used.
        """
        if on_error not in ("raise", "collect"):
            raise ConfigError(f"on_error={on_error!r}: raise or collect")
        options = {"maps": maps, "prevalence": prevalence}
        options |= {"samples": samples, "seed": seed, "max_std": max_std}
        several = isinstance(films, list | tuple)
        given = list(films) if several else [films]
        ready: list[Reduced | InputRejected] = []
        for number, film in enumerate(given, start=1):
            try:
                ready.append(self.reduce(film))
            except InputRejected as error:
                where = f"film {number} of {len(given)}, " if several else ""
                hint = f"{where}{intake.name_of(film)}: {error.hint}"
                error = InputRejected(error.code, hint)
                if on_error == "raise" or not several:
                    raise error from None
                ready.append(error)
        found = self.stream([r for r in ready if isinstance(r, Reduced)], **options)
        answers = [r if isinstance(r, InputRejected) else next(found) for r in ready]
        return answers if several else answers[0]

    def stream(
        self,
        ready: Iterable[Reduced],
        *,
        maps: bool = True,
        prevalence: Prevalence | None = None,
        samples: int = 0,
        seed: int = 0,
        max_std: float = MAX_STD,
    ) -> Iterator[Finding]:
        """Findings of films that were reduced, batch after batch; see ``predict``.

        What is asked for is checked at once, before any film is taken.
        """
        limits = self._site(prevalence), max_std
        self._check_spread(samples, max_std)
        return self._in_batches(ready, limits, maps, samples, seed)

    def _in_batches(self, ready: Iterable[Reduced], *how: Any) -> Iterator[Finding]:
        waiting: list[Reduced] = []
        for film in ready:
            waiting.append(film)
            if len(waiting) == self.batch_size:
                yield from self._read(waiting, *how)
                waiting = []
        if waiting:
            yield from self._read(waiting, *how)

    def reduce(self, film: Source) -> Reduced:
        """A film as the network takes it; see ``intake.reduce``."""
        return intake.reduce(film, self.size, fit=self.fit, enlarge=self.enlarge)

    def _read(
        self,
        reduced: list[Reduced],
        limits: tuple[np.ndarray, float],
        maps: bool,
        samples: int,
        seed: int,
    ) -> Iterator[Finding]:
        batch = self._batch([film.pixels for film in reduced])
        key = jax.random.key(seed)
        # Kept on the device unless asked for: maps may be large.
        read = self._forward(self._arrays, batch, key, samples=samples)
        wanted = {"logits": read.logits, "raw": read.probs, "boxes": read.boxes}
        wanted |= {"std": read.std, "information": read.information}
        unfinished = "maps" in traits(self._task).finishes
        wanted["maps"] = read.maps if maps or unfinished else None
        found = jax.device_get(wanted)
        if unfinished:
            said = Prediction(
                logits=found["logits"], probs=found["raw"], maps=found["maps"]
            )
            found["boxes"] = self._task.finalize(said).boxes
            found["maps"] = found["maps"] if maps else None
        for row, film in enumerate(reduced):
            one = jax.tree.map(lambda x, row=row: x[row], found)
            yield self._finding(film, one, *limits)

    def _check_spread(self, samples: int, max_std: float) -> None:
        if not isinstance(samples, int) or samples < 0 or samples == 1:
            raise ConfigError(
                f"samples={samples!r}: give 0, or 2 and more passes: one has no spread"
            )
        if not max_std >= 0:
            raise ConfigError(f"max_std={max_std}: a number from 0 on is allowed")
        if samples and not self._drops:
            raise ConfigError(
                f"samples={samples}: this network has no dropout, so its spread is 0;"
                " leave it out"
            )

    @functools.cached_property
    def _drops(self) -> bool:
        return sampled.drops(self._task, self._model_def, self.size, self.size)

    def _batch(self, pixels: Sequence[np.ndarray]) -> Batch:
        """Always ``batch_size`` rows, whatever the number of films."""
        rows, side = self.batch_size, self.size
        image = np.zeros((rows, side, side, 1), np.uint8)
        image[: len(pixels), ..., 0] = pixels
        return Batch(
            image=image,
            labels=np.full((rows, len(self.classes)), np.nan, np.float32),
            mask=np.arange(rows) < len(pixels),
            position=np.arange(rows, dtype=np.uint32),
            index=np.full(rows, -1, np.int32),
        )

    def _finding(
        self,
        film: Reduced,
        found: Mapping[str, Any],
        site: np.ndarray,
        max_std: float,
    ) -> Finding:
        asked = np.isfinite(site)
        probs, shown, known, reasons, share = [], [], [], [], []
        thresholds = [self.scales.thresholds.get(c, np.nan) for c in self.classes]
        for column, name in enumerate(self.classes):
            # The film's score and the threshold, on the scale that is shown.
            pair = np.array([found["raw"][column], thresholds[column]], np.float64)
            platt = self.scales.platt.get(name)
            fitted = None if platt is None else scaling.apply_platt(pair, platt)
            if fitted is not None and asked[column]:
                fitted = scaling.reweight(fitted, platt.prevalence, site[column])
            prob, threshold = pair if fitted is None else fitted
            probs.append(prob)
            shown.append(threshold)
            known.append(fitted is not None)
            reasons.append("" if fitted is not None else self._reason(name))
            natural = np.nan if fitted is None else platt.prevalence
            share.append(site[column] if asked[column] else natural)
        return Finding(
            name=film.name,
            classes=self.classes,
            probs=np.array(probs),
            raw=found["raw"],
            logits=found["logits"],
            calibrated=np.array(known),
            reasons=tuple(reasons),
            thresholds=np.array(thresholds, np.float64),
            shown_thresholds=np.array(shown),
            prevalence=np.array(share, np.float64),
            site=asked,
            film=film.pixels,
            shape=film.shape,
            padded=self.fit != "stretch",
            maps=found["maps"],
            unit=UNITS.get(traits(self._task).maps, "map"),
            std=found["std"],
            information=found["information"],
            max_std=max_std,
            boxes=self._boxes(found["boxes"]),
            trained_on=self.about.get("trained on", ""),
        )

    def _reason(self, name: str) -> str:
        if name not in self.scales.platt:
            return self.scales.missing or "it was not frozen on validation films"
        reason = self.scales.platt[name].reason or ""
        return reason.removeprefix(f"{scaling.UNCALIBRATED}: ")

    def _boxes(self, boxes: Any) -> list | None:
        if boxes is None:
            return None
        return [
            (self.classes[int(label)], float(score), tuple(float(v) for v in xyxy))
            for xyxy, label, score, real in zip(
                boxes.xyxy, boxes.label, boxes.score, boxes.mask, strict=True
            )
            if real
        ]

    def _site(self, prevalence: Prevalence | None) -> np.ndarray:
        """The prevalence asked for, per class; NaN where none was."""
        site = np.full(len(self.classes), np.nan)
        if prevalence is None:
            return site
        if not isinstance(prevalence, Mapping):
            if len(self.classes) > 1:
                raise ConfigError(
                    f"prevalence={prevalence!r}: there are {len(self.classes)} classes;"
                    " give a number for each by name, such as {'Pneumonia': 0.0128}"
                )
            prevalence = {self.classes[0]: prevalence}
        for name, share in prevalence.items():
            if name not in self.classes:
                raise ConfigError(
                    f"prevalence: no class {name!r}; there are {', '.join(self.classes)}"
                )
            platt = self.scales.platt.get(name)
            if platt is None or platt.slope is None:
                raise ConfigError(
                    f"prevalence: {name} is a {scaling.UNCALIBRATED} ({self._reason(name)})"
                    ", whose odds mean nothing; leave it out"
                )
            if not 0 < share < 1:
                raise ConfigError(
                    f"prevalence: {name}={share!r}; a share between 0 and 1 is allowed"
                )
            site[self.classes.index(name)] = share
        return site
