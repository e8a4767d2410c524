"""Films with what was boxed and what should have been: solid predicted, dashed reference."""

import io
from collections.abc import Mapping

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from cxr_jax.box_samples import BoxSamples
from cxr_jax.data.box_files import BoxTable
from cxr_jax.pages import html
from cxr_jax.pages.tables import words
from cxr_jax.predictions import RESEARCH_USE

PREDICTED, REFERENCE = "#ff9f40", "#4fd1c5"
SIDE, STRIP, GAP, DASH = 260, 15, 6, 5


def gallery(
    samples: BoxSamples, *, name: str = "", beside: Mapping[str, BoxTable] | None = None
) -> str:
    """Three films a class: found best, found as usual, and missed or falsely seen.

    Args:
        samples: of a run.
        name: of the run, where others stand beside it.
        beside: name → all boxes that another run found on the same part.
    """
    others = f" The films are those of {name}." if beside else ""
    parts = [
        html.paragraph(
            "Solid: predicted, with the best score of the class. Dashed: reference. Chosen"
            " by rule: the found box of median overlap, the one of least overlap among"
            f" boxed films, and the loudest box on a film without one.{others}"
        )
    ]
    for shown in dict.fromkeys(samples.classes.tolist()):
        rows = np.flatnonzero(samples.classes == shown)
        films = "".join(_film(samples, row, name, beside or {}) for row in rows)
        parts.append(html.heading(words(shown), level=4))
        parts.append(f'<div class="films">{films}</div>')
    return "\n".join(parts)


def _film(
    samples: BoxSamples, row: int, run: str, beside: Mapping[str, BoxTable]
) -> str:
    name, kind = str(samples.ids[row]), str(samples.kinds[row])
    score, overlap = samples.scores[row], samples.overlaps[row]
    said = "no box" if np.isnan(score) else f"score {score:.3f}"
    if np.isfinite(overlap):
        said += f", IoU {overlap:.2f}"
    panels = {run if beside else "": samples.predicted[row]}
    shown = str(samples.classes[row])
    panels |= {title: _of(table, name, shown) for title, table in beside.items()}
    image = draw(samples.films[row], panels, samples.reference[row])
    return html.figure(
        image,
        f"{kind}: {name}; {said}",
        alt=f"film {name} with predicted and reference boxes",
        verdict=str(samples.verdicts[row]),
        failed=bool(samples.verdicts[row] != "Found"),
    )


def _of(table: BoxTable, film: str, shown: str) -> np.ndarray:
    """Boxes ``[N, 4]`` of one class on one film."""
    return table.xyxy[(table.id == film) & (table.name == shown)]


def draw(
    film: np.ndarray, predicted: Mapping[str, np.ndarray], reference: np.ndarray
) -> bytes:
    """A film with boxes, as PNG; side by side where several found some.

    Args:
        film: uint8 ``[H, W]``.
        predicted: title → float ``[N, 4]``, xyxy in [0, 1]; NaN rows are none. A title
            may be empty where there is one.
        reference: ``[N, 4]``, likewise.
    """
    gray = Image.fromarray(film).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    # A page shows all panels in the width of one: words grow with their number.
    many = len(predicted)
    strip = STRIP * many
    width, top = many * (SIDE + GAP) - GAP, strip * any(predicted)
    page = Image.new("RGB", (width, top + SIDE + strip), "white")
    font, pen = ImageFont.load_default(size=10 * many), ImageDraw.Draw(page)
    for place, (title, found) in enumerate(predicted.items()):
        left = place * (SIDE + GAP)
        page.paste(gray.convert("RGB"), (left, top))
        for boxes, color, dash in ((reference, REFERENCE, DASH), (found, PREDICTED, 0)):
            for box in boxes[np.isfinite(boxes).all(axis=1)] * (SIDE - 1):
                corners = (box + [left, top, left, top]).tolist()
                _outline(pen, corners, color, dash)
        pen.text((left + SIDE / 2, 1), title, fill="#3e4c59", font=font, anchor="ma")
    at = (width / 2, top + SIDE + 2)
    pen.text(at, RESEARCH_USE, fill="#7b8794", font=font, anchor="ma")
    about = PngInfo()
    about.add_text("Description", RESEARCH_USE)
    out = io.BytesIO()
    page.save(out, "PNG", optimize=True, pnginfo=about)
    return out.getvalue()


def _outline(pen: ImageDraw.ImageDraw, box: list[float], color: str, dash: int) -> None:
    if not dash:
        pen.rectangle(box, outline=color, width=2)
        return
    x1, y1, x2, y2 = box
    for a, b in (
        ((x1, y1), (x2, y1)),
        ((x2, y1), (x2, y2)),
        ((x2, y2), (x1, y2)),
        ((x1, y2), (x1, y1)),
    ):
        start, way = np.array(a), np.array(b) - np.array(a)
        length = float(np.hypot(*way))
        for begin in np.arange(0, length, 2 * dash):
            ends = [begin, min(begin + dash, length)]
            points = [tuple(start + way * end / max(length, 1e-9)) for end in ends]
            pen.line(points, fill=color, width=2)
