"""How well the findings can be told at all: the ceiling of each class at each size.

The observer knows the dose and the display, the outlines of body, lungs and heart up to
half their spread over patients, and lesions from a library of 60 of each class. It does
not know where a lesion lies, nor the clutter: vessels, ribs, vertebrae. Four steps, all
in the domain of ``-log I``.

1. Signal. For each test film and finding, the noise-free film with the lesion less the
   same film without it. It is divided by the local standard deviation of quanta, 8-bit
   rounding and clutter; clutter is the difference of two chests with nearly the same
   outlines, other ribs and vessels. Detectability: ``d^2 = sum_f |S_f|^2 / P_f``, with
   S the spectrum of the signal and P that of the noise, both after this division.
2. Recognition. ``rho``: the largest whitened correlation of a lesion with the library
   (other patients' lesions and their mirror images) over all shifts. Textures are
   also known by their energy: ``d_e^2 = 1/2 a sum_f q_f^2 / (1 + q_f)``, q the
   expected energy over that of the noise in the part a of the film they take. The observer's answer to a lesion is
   ``x = sqrt(rho^2 d^2 + d_e^2) + n``, n standard normal.
3. Confusion. ``kappa[j, k]``: the largest whitened correlation of signals of class j
   with a bank of signals of class k over all shifts. A lesion of class j answers to
   class k with ``kappa x + sqrt(1 - kappa^2) n``, where x is its own answer.
4. Score. Each film has events: its lesions, and the background, where the largest of M
   normal numbers answers (M: lung area over the median area of the class's lesions).
   The score of class c is the largest over the events of
   ``r_c^2 / 2 - log(1 + 0.01 sum_k exp(r_k^2 / 2))``, k over the other classes (0.01:
   odds of a lesion of a class at a place; answers below 0 count as 0 in the sum, and
   with a minus sign in front). Its AUROC against the true labels, averaged over draws,
   is the ceiling.

Cardiomegaly and Emphysema are shapes, not lesions: their observer measures the widths
and heights that a film shows (the heart as magnified), with an error of half their
spread, and separates them by a linear discriminant, fitted on half the patients and
scored on the other half.

``python -m data_builders.phantom_chest.oracle --config=tiny`` updates `ceilings.json`.
"""

import argparse
import dataclasses
import json
import pathlib

import numpy as np
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.metrics import roc_auc_score

from cxr_jax.labels import NIH14
from data_builders.phantom_chest import anatomy, detector, film, observer, vessels
from data_builders.phantom_chest import cohort as cohorts
from data_builders.phantom_chest.cohort import Cohort, Visit
from data_builders.phantom_chest.radiograph import BOX_THRESHOLD, Scene, make_scene

FILE = pathlib.Path(__file__).with_name("ceilings.json")
SHAPES = ("Cardiomegaly", "Emphysema")
DRAWS = 16
REDRAWN = ("vertebra", "rib_radius", "rib_drop", "bow", "hilum", "vessel")
# The observer's error about outlines, as a share of their spread over patients.
UNKNOWN = 0.5
REDRAWS = 6


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measured:
    """What the observer takes from one film.

    Attributes:
        visit: the film.
        signals: class → spectrum of its lesions over the local noise.
        power: spectrum of the noise over the local noise, per pixel.
        area: ``[14]`` pixels of the lesion.
        lung: pixels of lung.
        shape: what a film shows of the anatomy, for `SHAPES`.
    """

    visit: Visit
    signals: dict[str, np.ndarray]
    power: np.ndarray
    area: np.ndarray
    lung: int
    shape: np.ndarray


def clutter(cohort: Cohort, scene: Scene) -> tuple[np.ndarray, np.ndarray]:
    """Local variance ``[size, size]`` of what is unknown, and normalised examples of it.

    Half the squared difference of the film and others of nearly the same outlines:
    large at the edges of lungs and heart, and where ribs and vessels are.
    """
    key = (scene.visit.patient.number, scene.visit.film)
    rng = np.random.default_rng(key)
    others = [_redrawn(scene, rng) for _ in range(REDRAWS)]
    tree = vessels.draw_tree(cohorts.stream(cohort, key[0], 0, "vessels"))
    plain = _clean(scene, film.line_integrals(scene.grid, scene.chest, tree).t)
    unlike = np.stack([_clean(scene, o.t) - plain for o in others]) / np.sqrt(2)
    variance = _smooth(np.mean(unlike**2, 0)) + 1e-8
    return variance, unlike


def _redrawn(scene: Scene, rng: np.random.Generator) -> film.Integrals:
    """Other vessels, ribs and vertebrae, and outlines known only to `UNKNOWN`."""
    female = scene.visit.patient.female
    drawn = [anatomy.draw_chest(rng, female=female, age=50) for _ in range(2)]
    values = {}
    for field in dataclasses.fields(scene.chest):
        name = field.name
        own, one, two = (np.array(getattr(c, name)) for c in (scene.chest, *drawn))
        moved = own + UNKNOWN * (one - two)
        value = one if name in REDRAWN else moved
        values[name] = tuple(map(float, value)) if value.ndim else float(value)
    values["bubble"] = max(values["bubble"], 0.0)
    values["breast"] = max(values["breast"], 0.0)
    chest = anatomy.Chest(**values)
    return film.line_integrals(scene.grid, chest, vessels.draw_tree(rng))


def _smooth(values: np.ndarray) -> np.ndarray:
    """Mean over neighbours, circular."""
    moves = [(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1)]
    return sum(np.roll(values, move, (0, 1)) for move in moves) / len(moves)


def _clean(scene: Scene, t: np.ndarray) -> np.ndarray:
    """Noise-free ``-log I``."""
    return detector.detect(t, exposure=scene.exposure, pixel=scene.grid.pixel, rng=None)


def measure(cohort: Cohort, visit: Visit) -> Measured:
    """Signals of a film's lesions over the local noise (first half of step 1)."""
    scene = make_scene(cohort, visit)
    shown = _clean(scene, scene.integrals.t)
    variance, unlike = clutter(cohort, scene)
    scale = 1 / np.sqrt(variance + _pixel_noise(scene, shown))
    signals, area = {}, np.zeros(cohorts.CLASSES)
    for k, name in enumerate(NIH14):
        parts = [x for n, _, x in scene.integrals.changes if n == name]
        if not parts:
            continue
        change = sum(parts)
        signal = shown - _clean(scene, scene.integrals.t - change)
        signals[name] = np.fft.fft2(signal * scale).astype(np.complex64)
        area[k] = np.sum(np.abs(change) > BOX_THRESHOLD * np.abs(change).max())
    power = np.mean(np.abs(np.fft.fft2(unlike * scale)) ** 2, 0)
    # What quanta and rounding add is white.
    white = np.mean(_pixel_noise(scene, shown) * scale**2) * scale.size
    return Measured(
        visit=visit,
        signals=signals,
        power=(power + white) / scale.size,
        area=area,
        lung=int(np.sum(scene.integrals.lung > 20)),
        shape=_shape(scene.chest, ap=visit.ap),
    )


def _pixel_noise(scene: Scene, shown: np.ndarray) -> np.ndarray:
    """Variance of quantum noise and of 8-bit rounding."""
    quanta = np.clip(scene.exposure.quanta, *detector.QUANTA_RANGE)
    step = np.ptp(np.percentile(shown, [5, 98])) / (255 * 0.82)
    return np.exp(shown) / quanta + step**2 / 12


def detectability(found: list[Measured]) -> tuple[np.ndarray, list[dict]]:
    """``d`` per film and class, and unit whitened signals (second half of step 1)."""
    power = _smooth(np.mean([m.power for m in found], 0))
    d, unit = np.zeros((len(found), cohorts.CLASSES)), []
    for row, m in enumerate(found):
        unit.append({})
        for name, spectrum in m.signals.items():
            whitened = spectrum / np.sqrt(power * power.size)
            value = float(np.sqrt(np.sum(np.abs(whitened) ** 2)))
            d[row, NIH14.index(name)] = max(value, 1e-6)
            unit[-1][name] = whitened / max(value, 1e-6)
    return d, unit


def _shape(c: anatomy.Chest, *, ap: bool) -> np.ndarray:
    """Widths, heights and greys that a film shows, and its view."""
    width = c.heart_width * c.magnify / (2 * c.half_width)
    rise = (c.bottom - c.dome[0], c.bottom - c.dome[1])
    return np.array([width, *rise, c.bottom, c.lung_mu, c.vessel_count, ap])


def shape_error() -> np.ndarray:
    """Standard deviation of the observer's error about `_shape`; the view is known."""
    rng = np.random.default_rng(0)
    drawn = [anatomy.draw_chest(rng, female=k % 2 > 0, age=50) for k in range(400)]
    return UNKNOWN * np.std([_shape(c, ap=False) for c in drawn], 0)


def shape_ceiling(found: list[Measured], k: int) -> float:
    """AUROC of a linear discriminant on the shown anatomy, two-fold by patient."""
    x = np.stack([m.shape for m in found])
    x = x + shape_error() * np.random.default_rng(k).standard_normal(x.shape)
    view = x[:, -1:]
    x = np.concatenate([x, x[:, :1] * view], 1)
    y = np.array([m.visit.severity[k] > 0 for m in found])
    half = np.array([m.visit.patient.number % 2 for m in found])
    values = []
    for fold in (0, 1):
        fit = LinearDiscriminantAnalysis().fit(x[half != fold], y[half != fold])
        score = fit.decision_function(x[half == fold])
        values.append(roc_auc_score(y[half == fold], score))
    return float(np.mean(values))


def ceilings(cohort: Cohort, *, films: int) -> dict[str, dict]:
    """Ceiling of each class on the test films of a cohort.

    Args:
        cohort: size and prevalences.
        films: at most so many test films are measured.

    Returns:
        class → ``ceiling`` (AUROC), ``n_pos`` (films with the finding); of lesions
        ``d`` (quartiles of the detectability) and ``rho`` (median).
    """
    chosen = []
    for patient in cohorts.schedule(cohort):
        if patient.split == "test" and len(chosen) < films:
            chosen += cohorts.visits(cohort, patient)
    found = [measure(cohort, visit) for visit in chosen[:films]]
    d, unit = detectability(found)
    who = np.array([m.visit.patient.number for m in found])
    rho = observer.recognised(who, unit)
    area = np.stack([m.area for m in found])
    answer = np.hypot(rho * d, observer.texture(d, unit, area=area))
    setting = {
        "area": area,
        "lung": np.array([m.lung for m in found]),
        "kappa": observer.confusion(unit),
        "rng": np.random.default_rng(cohort.seed),
    }
    truth = np.stack([m.visit.truth for m in found])
    drawn = [observer.scores(answer, **setting) for _ in range(DRAWS)]
    out = {}
    for k, name in enumerate(NIH14):
        entry = {"ceiling": None, "n_pos": int(truth[:, k].sum())}
        if 0 < truth[:, k].sum() < len(truth):
            if name in SHAPES:
                value = shape_ceiling(found, k)
            else:
                value = np.mean([roc_auc_score(truth[:, k], s[:, k]) for s in drawn])
                own = d[d[:, k] > 0, k]
                known = rho[d[:, k] > 0, k]
                entry["rho"] = round(float(np.median(known)), 2)
                entry["d"] = [round(float(q), 2) for q in np.quantile(own, QUARTILES)]
            entry["ceiling"] = round(float(value), 4)
        out[name] = entry
    return out


QUARTILES = (0.25, 0.5, 0.75)


def learnable(config: str, *, at_least: float = 0.9) -> tuple[str, ...]:
    """Classes of a config whose stored ceiling reaches a value."""
    table = json.loads(FILE.read_text())[config]["classes"]
    return tuple(name for name in NIH14 if (table[name]["ceiling"] or 0.0) >= at_least)


def main(argv: list[str] | None = None) -> None:
    """Compute the ceilings of a config and store them."""
    from data_builders.phantom_chest import phantom_chest_dataset_builder as builder

    known = {c.name: c.cohort for c in builder.Builder.BUILDER_CONFIGS}
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", choices=sorted(known), required=True)
    parser.add_argument("--films", type=int, default=1500)
    args = parser.parse_args(argv)
    # All sizes at the same prevalences, so that each class has positives.
    rates = {"multiplier": 2.0, "floor": 0.09, "cap": 0.2}
    cohort = dataclasses.replace(known[args.config], **rates)
    classes = ceilings(cohort, films=args.films)
    version = str(builder.Builder.VERSION)
    stored = json.loads(FILE.read_text()) if FILE.exists() else {}
    stored[args.config] = {"version": version, "films": args.films, "classes": classes}
    FILE.write_text(json.dumps(stored, indent=1, sort_keys=True) + "\n")
    for name, entry in classes.items():
        print(f"{name:20s} {entry}")


if __name__ == "__main__":
    main()
