"""The 29 anatomical regions of a film, and which findings lie in them."""

import dataclasses

import numpy as np

from cxr_jax.labels import IMAGENOME_FINDINGS, REGIONS29
from data_builders.phantom_chest import skeleton, vessels
from data_builders.phantom_chest.anatomy import (
    LEFT,
    RIGHT,
    STEP,
    TOP,
    Chest,
    dome_axes,
    lung_outline,
    rows,
)
from data_builders.phantom_chest.physics import Grid

SIDES = ("right", "left")
HIDDEN = 0.01
MIN_SHOWN = 0.4

# Our classes → names of Chest ImaGenome.
IMAGENOME_OF = {
    "Atelectasis": ("atelectasis",),
    "Cardiomegaly": ("enlarged cardiac silhouette",),
    "Effusion": ("pleural effusion",),
    "Infiltration": ("infiltration", "lung opacity"),
    "Mass": (
        "mass/nodule (not otherwise specified)",
        "multiple masses/nodules",
    ),
    "Nodule": ("mass/nodule (not otherwise specified)",),
    "Pneumonia": ("pneumonia",),
    "Pneumothorax": ("pneumothorax",),
    "Consolidation": ("consolidation",),
    "Edema": ("pulmonary edema/hazy opacity",),
    "Emphysema": ("copd/emphysema",),
    "Fibrosis": ("increased reticular markings/ild pattern",),
    "Pleural_Thickening": ("pleural/parenchymal scarring",),
    "Hernia": ("hernia",),
}
# A large heart is a finding of these regions only, whatever its box covers.
CARDIAC = ("cardiac silhouette", "mediastinum")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Regions:
    """As `packing.RegionLabels`: boxes ``[29, 4]``, presence, labels ``[29, 53]``."""

    xyxy: np.ndarray
    presence: np.ndarray
    labels: np.ndarray


def oval(x0: float, y0: float, x1: float, y1: float) -> np.ndarray:
    """Points of a rounded shape that fills a box in mm, ``[8, 2]``."""
    cx, cy, a, b = (x0 + x1) / 2, (y0 + y1) / 2, abs(x1 - x0) / 2, abs(y1 - y0) / 2
    k = 0.9
    unit = [(1, 0), (-1, 0), (0, 1), (0, -1), (k, k), (k, -k), (-k, k), (-k, -k)]
    return np.array([cx, cy]) + np.array(unit) * (a, b)


def heart_outline(chest: Chest) -> np.ndarray:
    """Points of the cardiac silhouette in mm, whose x range is the heart's."""
    c = chest
    tall = c.heart_width * c.magnify
    return oval(
        c.heart_left, c.heart_y - 0.39 * tall, c.heart_right, c.heart_y + 0.39 * tall
    )


def _lung_part(chest: Chest, side: int, top: float, bottom: float) -> np.ndarray:
    """Outline points of a lung between two heights."""
    lateral, medial, _ = lung_outline(chest, side)
    y = rows()
    ends = [int(np.clip((h - TOP) / STEP, 0, len(y) - 1)) for h in (top, bottom)]
    inside = np.linspace(*ends, 16).astype(int)
    sign = 1 if side else -1
    return np.concatenate(
        [np.stack([sign * edge[inside], y[inside]], -1) for edge in (lateral, medial)]
    )


def _side_shapes(chest: Chest, side: int) -> dict[str, np.ndarray]:
    """The regions that come in pairs, without their side in the name."""
    sign = 1 if side else -1
    bottom = chest.bottom + 4 * side
    third, more = bottom / 3, 0.05 * bottom
    hx, hy = vessels.hilum(chest, side)
    base, _, half, height = dome_axes(chest, side)
    wall = chest.half_width
    collar = skeleton.clavicles(chest)[side]
    return {
        "lung": _lung_part(chest, side, 1, bottom),
        "upper lung zone": _lung_part(chest, side, 1, third + more),
        "mid lung zone": _lung_part(chest, side, third - more, 2 * third + more),
        "lower lung zone": _lung_part(chest, side, 2 * third - more, bottom),
        "hilar structures": oval(hx - 22, hy - 32, hx + 22, hy + 34),
        "apical zone": _lung_part(chest, side, 1, chest.clavicle + 2),
        "costophrenic angle": oval(
            sign * (wall - 30), bottom - 30, sign * wall, bottom
        ),
        "hemidiaphragm": oval(
            sign * (base - half + 8), bottom - height - 5, sign * wall, bottom
        ),
        "clavicle": collar
        + np.array([[0, 6.0]]) * np.where(np.arange(len(collar)) % 2, 1, -1)[:, None],
    }


def shapes(chest: Chest) -> dict[str, np.ndarray]:
    """Outline points in mm of every region, by name."""
    c, dx = chest, chest.heart_shift
    out = {}
    for side in (RIGHT, LEFT):
        for name, points in _side_shapes(c, side).items():
            out[f"{SIDES[side]} {name}"] = points
    heart = heart_outline(c)
    top, low = heart[:, 1].min(), heart[:, 1].max()
    wide = 1.25 * c.mediastinum
    knob = 22 + 0.35 * c.knob + dx
    edge = c.heart_right
    corner = c.heart_y - 0.28 * c.heart_width
    out |= {
        "trachea": oval(dx - 15, -58, dx + 10, c.carina),
        "spine": oval(-c.spine_width - 3, -50, c.spine_width + 3, c.bottom + 40),
        "aortic arch": oval(
            knob - 1.5 * c.knob, c.carina - 22 - c.knob, knob + c.knob, c.carina
        ),
        "mediastinum": oval(edge + 4, 0, c.heart_left - 8, low),
        "upper mediastinum": oval(dx - wide, 0, dx + wide + 8, c.carina + 8),
        "svc": oval(dx - 0.62 * c.mediastinum - 14, 0.3 * c.carina, dx - 4, top + 8),
        "cardiac silhouette": heart,
        "cavoatrial junction": oval(edge - 3, corner - 14, edge + 27, corner + 14),
        "right atrium": oval(edge, corner, edge + 0.4 * c.heart_width, low - 12),
        "carina": oval(dx - 24, c.carina - 14, dx + 20, c.carina + 20),
        "abdomen": oval(
            -c.half_width - 10, c.dome[0], c.half_width + 10, c.bottom + 110
        ),
    }
    return out


def boxes_of(chest: Chest, grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    """Boxes ``[29, 4]`` of all regions, and the share of each that is on the film."""
    table = shapes(chest)
    parts = [table[name] for name in REGIONS29]
    first = np.cumsum([0] + [len(p) for p in parts[:-1]])
    points = grid.to_pixels(np.concatenate(parts)) / grid.size
    low = np.minimum.reduceat(points, first)
    full = np.concatenate([low, np.maximum.reduceat(points, first)], 1)
    shown = np.clip(full, 0, 1)
    area = np.prod(shown[:, 2:] - shown[:, :2], 1)
    return shown, area / np.maximum(np.prod(full[:, 2:] - full[:, :2], 1), 1e-9)


def covered(mask: np.ndarray, xyxy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pixels of a mask in each box, and the boxes' own pixels (at least 1)."""
    size = len(mask)
    total = np.zeros((size + 1, size + 1))
    total[1:, 1:] = mask.cumsum(0).cumsum(1)
    edge = np.rint(xyxy * size).astype(int)
    x0, y0, x1, y1 = edge.T
    inside = total[y1, x1] - total[y0, x1] - total[y1, x0] + total[y0, x0]
    return inside, np.maximum((x1 - x0) * (y1 - y0), 1)


def label_regions(
    masks: dict[str, np.ndarray], xyxy: np.ndarray, presence: np.ndarray
) -> np.ndarray:
    """Chest ImaGenome labels of the regions, uint8 ``[29, 53]``.

    A finding is positive in a region that holds at least 20% of its area, or of which
    it changes at least 25%, and in the lung of that side.

    Args:
        masks: class → bool ``[size, size]``, pixels that the finding changes.
        xyxy: boxes of the regions.
        presence: absent regions carry no label.
    """
    out = np.zeros((len(REGIONS29), len(IMAGENOME_FINDINGS)), np.uint8)
    cardiac = np.array([name in CARDIAC for name in REGIONS29])
    for name, mask in masks.items():
        inside, own = covered(mask, xyxy)
        positive = (inside >= 0.2 * max(mask.sum(), 1)) | (inside >= 0.25 * own)
        if name == "Cardiomegaly":
            positive &= cardiac
        else:
            for lung in (0, 8):
                positive[lung] |= positive[lung + 1 : lung + 8].any()
        for finding in IMAGENOME_OF[name]:
            out[positive & presence, IMAGENOME_FINDINGS.index(finding)] = 1
    return out


def make_regions(
    chest: Chest,
    grid: Grid,
    masks: dict[str, np.ndarray],
    rng: np.random.Generator,
) -> Regions:
    """Boxes, presence and labels; a region out of the field, or hidden, is absent."""
    xyxy, shown = boxes_of(chest, grid)
    presence = (shown >= MIN_SHOWN) & (rng.random(len(REGIONS29)) >= HIDDEN)
    xyxy = np.where(presence[:, None], xyxy, 0.0)
    return Regions(
        xyxy=xyxy.astype(np.float32),
        presence=presence.astype(np.uint8),
        labels=label_regions(masks, xyxy, presence),
    )
