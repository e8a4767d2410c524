"""Films under activation maps, as a matplotlib figure that needs no display."""

import dataclasses
import io
from collections.abc import Sequence

import cv2
import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from cxr_jax.predictions import RESEARCH_USE

MAPS_SHOW = "A map shows influence, not extent."
BOXES_SHOW = "A box says where a finding is placed, not how far it reaches."
INK, FAINT, FRAME = "#1f2933", "#52606d", "#4fd1c5"
# Small films are drawn with square pixels, so that maps over them are smooth.
LEAST_SIDE = 320


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Panel:
    """One class over the film.

    Attributes:
        title: above it.
        heat: float ``[h, w]``, the map, or None.
        boxes: xyxy in [0, 1].
    """

    title: str
    heat: np.ndarray | None
    boxes: Sequence[tuple[float, ...]] = ()


class Plot(Figure):
    """A figure that a notebook shows without a plotting session."""

    def to_png(self) -> bytes:
        """The figure as PNG, with the words on its use inside the file."""
        out = io.BytesIO()
        self.savefig(out, format="png", metadata={"Description": RESEARCH_USE})
        return out.getvalue()

    _repr_png_ = to_png


def draw(
    film: np.ndarray,
    panels: Sequence[Panel],
    *,
    title: str,
    shape: tuple[int, int],
    unit: str,
    side: float,
) -> Plot:
    """The film, then the film under each map, with its boxes; one scale from 0 for maps.

    Args:
        film: uint8 ``[S, S]``.
        panels: at least one; all have a map, or none.
        title: of the film.
        shape: height and width that the film had: its proportions.
        unit: of the maps, in words.
        side: height of a panel, in inches.
    """
    heats = [panel.heat for panel in panels if panel.heat is not None]
    limit = max((float(heat.max()) for heat in heats), default=0.0)
    film = film.repeat(-(-LEAST_SIDE // len(film)), axis=0)
    film = film.repeat(len(film) // film.shape[1], axis=1)
    count = len(panels) + 1
    width = side * shape[1] / shape[0]
    size = (count * (width + 0.1) + 0.7, side + 0.8)
    figure = Plot(figsize=size, layout="constrained", dpi=120)
    first, *others = figure.subplots(1, count, squeeze=False)[0]
    # The reduced film is square; the film was not, perhaps.
    aspect = shape[0] / shape[1]
    _show(first, film, title, aspect)
    for axes, panel in zip(others, panels, strict=True):
        heat = panel.heat
        under = film if heat is None else blend(film, heat, limit=limit)
        _show(axes, under, panel.title, aspect)
        for x1, y1, x2, y2 in panel.boxes:
            at = (x1 * len(film) - 0.5, y1 * len(film) - 0.5)
            reach = ((x2 - x1) * len(film), (y2 - y1) * len(film))
            axes.add_patch(Rectangle(at, *reach, fill=False, edgecolor=FRAME))
    shows = [BOXES_SHOW] if any(panel.boxes for panel in panels) or not heats else []
    if heats:
        _draw_scale(others[-1], limit, unit)
        shows.insert(0, MAPS_SHOW)
    words = " ".join([*shows, RESEARCH_USE])
    figure.supxlabel(words, fontsize=7, color=FAINT)
    figure.get_layout_engine().set(h_pad=0.08)
    return figure


def blend(film: np.ndarray, heat: np.ndarray, *, limit: float) -> np.ndarray:
    """A film under an activation map; where the map is 0 or below, the film alone.

    Args:
        film: uint8 ``[H, W]``.
        heat: float ``[h, w]``, enlarged bilinearly between the centres of its cells.
        limit: the value drawn in the last colour; nothing is coloured unless above 0.

    Returns:
        uint8 ``[H, W, 3]``.
    """
    height, width = film.shape
    heat = cv2.resize(heat.astype(np.float32), (width, height))
    share = np.clip(heat / limit, 0, 1) if limit > 0 else np.zeros_like(heat)
    color = matplotlib.colormaps["inferno"](share)[..., :3]
    opacity = 0.65 * np.sqrt(share)[..., None]
    mixed = film[..., None] * (1 - opacity) + 255 * color * opacity
    return np.rint(mixed).astype(np.uint8)


def scale(steps: int) -> np.ndarray:
    """The colours of ``blend`` from 0 to its limit, over mid-gray.

    Returns:
        uint8 ``[steps, 3]``.
    """
    shares = np.linspace(0, 1, steps, dtype=np.float32)[None]
    return blend(np.full(shares.shape, 128, np.uint8), shares, limit=1.0)[0]


def _show(axes: Axes, image: np.ndarray, title: str, aspect: float) -> None:
    axes.imshow(image, cmap="gray", vmin=0, vmax=255, aspect=aspect)
    axes.set_title(title, fontsize=7.5, color=INK)
    axes.set_axis_off()


def _draw_scale(axes: Axes, limit: float, unit: str) -> None:
    """The colours over mid-gray, as the panels show them, with their values."""
    bar = axes.inset_axes((1.04, 0.0, 0.05, 1.0))
    if limit <= 0:
        bar.set_axis_off()
        bar.text(0, 0.5, "no map above 0", fontsize=7, rotation=90, va="center")
        return
    colors = scale(128)[::-1, None]
    bar.imshow(colors, aspect="auto", extent=(0, 1, 0, limit))
    bar.set_xticks([])
    bar.yaxis.tick_right()
    bar.yaxis.set_label_position("right")
    bar.tick_params(labelsize=7)
    bar.set_ylabel(unit, fontsize=7)
