"""Contact sheets: every type in its views, every kind at three severities, a crowd.

``python -m data_builders.phantom_bone.sheets --output=docs`` writes
``phantom_bone_types.png``, ``phantom_bone_kinds.png`` and ``phantom_bone_sizes.png``.
"""

import argparse
import dataclasses
import pathlib
from collections.abc import Mapping, Sequence

from PIL import Image, ImageColor, ImageDraw

from cxr_jax.labels import BODY_PARTS
from data_builders.phantom_bone import cohort as cohorts
from data_builders.phantom_bone import radiograph
from data_builders.phantom_bone.cohort import KINDS, Cohort, Study

SEVERITIES = (0.2, 0.55, 0.95)
COHORT = Cohort(films=1, size=128, fit="pad", cast=0.0, border=0.0)
COLOURS = dict(zip(KINDS, ("#ffcc00", "#66ccff", "#99ff66", "#ff6699"), strict=True))
# For each kind, types and patients in whom it lies well on the film.
SHOWN = {
    "fracture": (("Forearm", 37), ("Finger", 33), ("Wrist", 34)),
    "hardware": (("Humerus", 32), ("Hand", 32), ("Elbow", 34)),
    "degenerative": (("Hand", 38), ("Shoulder", 32), ("Wrist", 30)),
    "other": (("Shoulder", 34), ("Finger", 33), ("Humerus", 30)),
}


def posed_study(
    cohort: Cohort,
    number: int,
    part: str,
    severity: Mapping[str, float],
    *,
    views: Sequence[int] = (0, 1),
) -> Study:
    """The first study of a patient, of a type, with the abnormalities asked for."""
    study = cohorts.draw_patient(cohort, number)[0]
    usual = cohorts.SHOULDER_ANGLES if part == "Shoulder" else cohorts.ANGLES
    return dataclasses.replace(
        study,
        name=f"XR_{part.upper()}/patient{number + 1:05d}/study1",
        part=part,
        severity=dict(severity),
        angles=tuple(usual[k] for k in views),
        lateral=tuple(k == 1 and part != "Shoulder" for k in views),
    )


def panel(made: radiograph.Radiograph, side: int, text: str) -> Image.Image:
    """One film with a caption and its boxes."""
    image = Image.fromarray(made.image).convert("RGB")
    if image.width != side:
        image = image.resize((side, side), Image.Resampling.BOX)
    draw = ImageDraw.Draw(image)
    for kind, box in zip(made.kinds, made.boxes * side, strict=True):
        x0, y0, x1, y1 = (float(v) for v in box)
        draw.rectangle((x0, y0, x1 - 1, y1 - 1), outline=COLOURS[kind], width=1)
    draw.text((3, 1), text, fill="#ffcc00")
    return image


def tile(panels: Sequence[Image.Image], columns: int) -> Image.Image:
    """Panels of one size, row by row."""
    wide, tall = panels[0].size
    rows = -(-len(panels) // columns)
    sheet = Image.new("RGB", (columns * wide, rows * tall))
    for k, one in enumerate(panels):
        sheet.paste(one, (k % columns * wide, k // columns * tall))
    return sheet


def types_sheet() -> Image.Image:
    """Every type: frontal, lateral, oblique of a normal study, then an abnormal one."""
    panels = []
    for k, part in enumerate(BODY_PARTS):
        ill = {KINDS[k % 4]: 0.8, KINDS[(k + 1) % 4]: 0.7}
        for severity, number in (({}, 20 + k), (ill, 60 + k)):
            study = posed_study(COHORT, number, part, severity, views=(0, 1, 2))
            made = radiograph.study_films(COHORT, study)
            panels += [panel(one, COHORT.size, part) for one in made]
    return tile(panels, 6)


def kinds_sheet() -> Image.Image:
    """Every kind at three severities, two views each: the same place, growing."""
    panels = []
    for kind in KINDS:
        for part, number in SHOWN[kind]:
            for s in SEVERITIES:
                study = posed_study(COHORT, number, part, {kind: s})
                made = radiograph.study_films(COHORT, study)
                panels += [panel(m, COHORT.size, f"{kind} {s:.2f}") for m in made]
    return tile(panels, 6)


def sizes_sheet() -> Image.Image:
    """Films as they are drawn for training: 64 and 128 px stretched, 64 px padded."""
    panels = []
    for size, fit in ((64, "stretch"), (128, "stretch"), (64, "pad")):
        cohort = Cohort(films=16, size=size, fit=fit)
        films = list(radiograph.generate(cohort))[:16]
        panels += [panel(one, 128, "") for one in films]
    return tile(panels, 8)


def palette() -> Image.Image:
    """Every third gray and the colours of the boxes: it keeps the files small."""
    grays = [level for level in range(0, 256, 3) for _ in range(3)]
    out = Image.new("P", (1, 1))
    colours = [value for name in COLOURS.values() for value in ImageColor.getrgb(name)]
    out.putpalette(grays + colours)
    return out


def main(argv: list[str] | None = None) -> None:
    """Write all sheets."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=pathlib.Path, required=True)
    folder = parser.parse_args(argv).output
    folder.mkdir(parents=True, exist_ok=True)
    for name, sheet in (
        ("types", types_sheet()),
        ("kinds", kinds_sheet()),
        ("sizes", sizes_sheet()),
    ):
        small = sheet.quantize(palette=palette(), dither=Image.Dither.NONE)
        small.save(folder / f"phantom_bone_{name}.png", optimize=True)


if __name__ == "__main__":
    main()
