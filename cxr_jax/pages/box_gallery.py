"""Films with what was boxed and what should have been: solid predicted, dashed reference."""

import io

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from cxr_jax.box_samples import BoxSamples
from cxr_jax.pages import html
from cxr_jax.pages.tables import words
from cxr_jax.predictions import RESEARCH_USE

PREDICTED, REFERENCE = "#ff9f40", "#4fd1c5"
SIDE, STRIP, DASH = 260, 15, 5


def gallery(samples: BoxSamples) -> str:
    """Three films a class: found best, found as usual, and missed or falsely seen."""
    parts = [
        html.paragraph(
            "Solid: predicted, with the best score of the class. Dashed: reference. Chosen"
            " by rule: the found box of median overlap, the one of least overlap among"
            " boxed films, and the loudest box on a film without one."
        )
    ]
    for name in dict.fromkeys(samples.classes.tolist()):
        rows = np.flatnonzero(samples.classes == name)
        films = "".join(_film(samples, row) for row in rows)
        parts.append(html.heading(words(name), level=4))
        parts.append(f'<div class="films">{films}</div>')
    return "\n".join(parts)


def _film(samples: BoxSamples, row: int) -> str:
    name, kind = str(samples.ids[row]), str(samples.kinds[row])
    score, overlap = samples.scores[row], samples.overlaps[row]
    said = "no box" if np.isnan(score) else f"score {score:.3f}"
    if np.isfinite(overlap):
        said += f", IoU {overlap:.2f}"
    image = draw(samples.films[row], samples.predicted[row], samples.reference[row])
    return html.figure(
        image,
        f"{kind}: {name}; {said}",
        alt=f"film {name} with predicted and reference boxes",
        verdict=str(samples.verdicts[row]),
        failed=bool(samples.verdicts[row] != "Found"),
    )


def draw(film: np.ndarray, predicted: np.ndarray, reference: np.ndarray) -> bytes:
    """A film with boxes, as PNG.

    Args:
        film: uint8 ``[H, W]``.
        predicted: float ``[N, 4]``, xyxy in [0, 1]; NaN rows are none.
        reference: likewise.
    """
    gray = Image.fromarray(film).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    page = Image.new("RGB", (SIDE, SIDE + STRIP), "white")
    page.paste(gray.convert("RGB"), (0, 0))
    pen = ImageDraw.Draw(page)
    for boxes, color, dash in ((reference, REFERENCE, DASH), (predicted, PREDICTED, 0)):
        for box in boxes[np.isfinite(boxes).all(axis=1)]:
            _outline(pen, [float(v) * (SIDE - 1) for v in box], color, dash)
    font = ImageFont.load_default(size=10)
    at = (SIDE / 2, SIDE + 2)
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
