"""The fourteen findings: what they do to the anatomy, and what they add to it."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from cxr_jax.labels import NIH14
from data_builders.phantom_chest import opacities, pleura
from data_builders.phantom_chest.anatomy import Chest
from data_builders.phantom_chest.site import Change, Site

NUMBERS = 96
PAINTERS = {
    "Consolidation": opacities.consolidation,
    "Pneumonia": opacities.pneumonia,
    "Infiltration": opacities.infiltration,
    "Edema": opacities.edema,
    "Mass": opacities.mass,
    "Nodule": opacities.nodule,
    "Atelectasis": pleura.atelectasis,
    "Fibrosis": pleura.fibrosis,
    "Pleural_Thickening": pleura.pleural_thickening,
    "Effusion": pleura.effusion,
    "Pneumothorax": pleura.pneumothorax,
    "Hernia": pleura.hernia,
}
POSTURAL = ("Effusion", "Pneumothorax")
# Classes whose lesion has an edge that a box can hold; the others are diffuse.
BOXED = tuple(
    name for name in NIH14 if name not in ("Edema", "Emphysema", "Fibrosis", "Hernia")
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Findings:
    """What one film shows.

    Attributes:
        severity: class → s in (0, 1], the classes that are present.
        numbers: class → uniform numbers of the patient, `NUMBERS` each.
        supine: fluid and gas lie as on a supine film.
    """

    severity: Mapping[str, float]
    numbers: Mapping[str, np.ndarray]
    supine: bool = False


def deform(chest: Chest, findings: Findings) -> Chest:
    """Secondary signs: volume loss, shift, flat domes, a large heart, thick vessels."""
    s = findings.severity.get
    c = dataclasses.replace
    if value := s("Emphysema"):
        height = [chest.bottom + 22 * value - d for d in chest.dome]
        flat = 1 - 0.62 * value
        bottom = chest.bottom + 22 * value
        chest = c(
            chest,
            bottom=bottom,
            dome=(
                bottom - (height[0] - 22 * value) * flat,
                bottom - (height[1] - 22 * value) * flat,
            ),
            lung_mu=chest.lung_mu * (1 - 0.35 * value),
            vessel_count=chest.vessel_count * (1 - 0.4 * value),
            vessel=chest.vessel * (1 - 0.15 * value),
            ratio=chest.ratio * (1 - 0.14 * value),
        )
    if value := s("Cardiomegaly"):
        chest = c(chest, ratio=0.50 + 0.18 * value**1.4)
    if value := s("Edema"):
        chest = c(chest, vessel=chest.vessel * (1.05 + 0.35 * value))
    if value := s("Fibrosis"):
        dome = tuple(d - 14 * value for d in chest.dome)
        chest = c(chest, dome=dome, bottom=chest.bottom - 12 * value)
    if (value := s("Atelectasis")) and pleura.lobar(findings.numbers["Atelectasis"]):
        chest = _pull(chest, findings.numbers["Atelectasis"], value)
    if (value := s("Pneumothorax", 0.0)) > 0.45 and not findings.supine:
        left = findings.numbers["Pneumothorax"][0] < 0.48
        move = 26 * (value - 0.45) * (-1 if left else 1)
        chest = c(chest, heart_shift=chest.heart_shift + move)
    return chest


def _pull(chest: Chest, numbers: np.ndarray, s: float) -> Chest:
    """Volume loss of a lower lobe: raised dome, heart drawn to that side."""
    side = int(numbers[0] < 0.5)
    dome = list(chest.dome)
    dome[side] -= 8 + 20 * s
    move = (4 + 10 * s) * (1 if side else -1)
    return dataclasses.replace(
        chest, dome=tuple(dome), heart_shift=chest.heart_shift + move
    )


def paint(site: Site, findings: Findings) -> list[Change]:
    """Changes of all findings of a film, dense ones first."""
    changes = []
    for name, painter in PAINTERS.items():
        s = findings.severity.get(name)
        if s is None:
            continue
        extra = {"supine": findings.supine} if name in POSTURAL else {}
        changes += painter(site, s, findings.numbers[name], **extra)
    return changes
