"""Films with what a model saw in them, as PNG."""

import io

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from cxr_jax import plots
from cxr_jax.predictions import RESEARCH_USE


def film_with_map(
    film: np.ndarray,
    heat: np.ndarray,
    boxes: np.ndarray,
    *,
    limit: float,
    side: int = 200,
) -> bytes:
    """A film, and beside it the same film under its activation map.

    Args:
        film: uint8 ``[H, W]``.
        heat: float ``[h, w]``; only what speaks for the class (above 0) is coloured.
        boxes: float ``[N, 4]``, xyxy in [0, 1]; NaN rows are none.
        limit: the value drawn in the last colour, above 0.
        side: pixels of one panel.

    Returns:
        PNG.
    """
    gray = Image.fromarray(film).resize((side, side), Image.Resampling.BICUBIC)
    mixed = plots.blend(np.asarray(gray), heat, limit=limit)
    strip = 15
    page = Image.new("RGB", (2 * side + 4, side + strip), "white")
    for k, part in enumerate((gray.convert("RGB"), Image.fromarray(mixed))):
        pen = ImageDraw.Draw(part)
        for box in boxes[np.isfinite(boxes).all(axis=1)]:
            pen.rectangle([float(v) * (side - 1) for v in box], outline="#4fd1c5")
        page.paste(part, (k * (side + 4), 0))
    pen = ImageDraw.Draw(page)
    font = ImageFont.load_default(size=10)
    pen.text((side + 2, side + 2), RESEARCH_USE, fill="#7b8794", font=font, anchor="ma")
    about = PngInfo()
    about.add_text("Description", RESEARCH_USE)
    out = io.BytesIO()
    page.save(out, "PNG", optimize=True, pnginfo=about)
    return out.getvalue()


def color_bar(*, width: int = 160, height: int = 10) -> bytes:
    """The scale of ``film_with_map``, from 0 to its limit, over mid-gray; PNG."""
    colors = np.broadcast_to(plots.scale(width), (height, width, 3))
    out = io.BytesIO()
    Image.fromarray(colors).save(out, "PNG")
    return out.getvalue()
