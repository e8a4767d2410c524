"""Contact sheets: every finding at three severities, the regions, a crowd of films.

``python -m data_builders.phantom_chest.sheets --output=docs`` writes
``phantom_chest_findings.png``, ``phantom_chest_boxes.png``, ``phantom_chest_regions.png``
and ``phantom_chest_sizes.png``.
"""

import argparse
import dataclasses
import pathlib

import numpy as np
from PIL import Image, ImageDraw

from cxr_jax.labels import NIH14, REGIONS29
from data_builders.phantom_chest import cohort as cohorts
from data_builders.phantom_chest import radiograph
from data_builders.phantom_chest.cohort import Cohort, Visit

SEVERITIES = (0.2, 0.55, 0.95)
COHORT = Cohort(films=1, size=192)
COLUMNS = 6
COLOURS = ("#ffcc00", "#66ccff", "#ff6699", "#99ff66")


def posed_visit(cohort: Cohort, number: int, severity: dict[str, float]) -> Visit:
    """A first visit of a patient with the findings asked for, upright (PA)."""
    patient = dataclasses.replace(cohorts.draw_patient(cohort, number), films=1)
    values = np.array([severity.get(name, 0.0) for name in NIH14])
    return Visit(
        patient=patient, film=0, episode=0, ap=False, supine=False, severity=values
    )


def panel(cohort: Cohort, visit: Visit, *, boxes: bool, text: str) -> Image.Image:
    """One film with a caption, and its finding boxes."""
    made = radiograph.make_radiograph(cohort, visit)
    image = Image.fromarray(made.image).convert("RGB")
    draw = ImageDraw.Draw(image)
    if boxes:
        for box in made.boxes * cohort.size:
            draw.rectangle(tuple(float(v) for v in box), outline=COLOURS[0], width=1)
    draw.text((4, 2), text, fill=COLOURS[0])
    return image


def tile(panels: list[Image.Image], columns: int) -> Image.Image:
    """Panels of one size, row by row."""
    wide, tall = panels[0].size
    rows = -(-len(panels) // columns)
    sheet = Image.new("RGB", (columns * wide, rows * tall))
    for k, one in enumerate(panels):
        sheet.paste(one, (k % columns * wide, k // columns * tall))
    return sheet


def findings_sheet(*, boxes: bool) -> Image.Image:
    """Every finding at three severities: the same patient and place, growing."""
    panels = []
    for k, name in enumerate(NIH14):
        for s in SEVERITIES:
            visit = posed_visit(COHORT, 40 + k, {name: s})
            panels.append(panel(COHORT, visit, boxes=boxes, text=f"{name} {s:.2f}"))
    return tile(panels, COLUMNS)


def regions_sheet(*, size: int = 512) -> Image.Image:
    """The 29 regions on one film, in four groups."""
    cohort = dataclasses.replace(COHORT, size=size)
    made = radiograph.make_radiograph(cohort, posed_visit(cohort, 44, {}))
    panels = []
    for first in range(0, len(REGIONS29), 8):
        image = Image.fromarray(made.image).convert("RGB")
        draw = ImageDraw.Draw(image)
        for k in range(first, min(first + 8, len(REGIONS29))):
            if not made.regions.presence[k]:
                continue
            x0, y0, x1, y1 = (float(v) for v in made.regions.xyxy[k] * size)
            colour = COLOURS[k % 4]
            draw.rectangle((x0, y0, x1 - 1, y1 - 1), outline=colour, width=2)
            draw.text((x0 + 3, y0 + 2), REGIONS29[k], fill=colour)
        panels.append(image)
    return tile(panels, 2)


def sizes_sheet() -> Image.Image:
    """Films as they are drawn for training, at 64, 128 and 256 px."""
    panels = []
    for size in (64, 128, 256):
        cohort = Cohort(films=8, size=size, multiplier=2.0, floor=0.06, cap=0.22)
        for number in range(100, 106):
            visit = cohorts.visits(cohort, cohorts.draw_patient(cohort, number))[0]
            made = radiograph.make_radiograph(cohort, visit)
            image = Image.fromarray(made.image).resize((256, 256), Image.Resampling.BOX)
            panels.append(image.convert("RGB"))
    return tile(panels, COLUMNS)


def main(argv: list[str] | None = None) -> None:
    """Write all sheets."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=pathlib.Path, required=True)
    folder = parser.parse_args(argv).output
    folder.mkdir(parents=True, exist_ok=True)
    for name, sheet in (
        ("findings", findings_sheet(boxes=False)),
        ("boxes", findings_sheet(boxes=True)),
        ("regions", regions_sheet()),
        ("sizes", sizes_sheet()),
    ):
        # Grey films with few colours: a palette keeps the files small.
        sheet.quantize(128).save(folder / f"phantom_chest_{name}.png", optimize=True)


if __name__ == "__main__":
    main()
