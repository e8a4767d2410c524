"""How a study is read: its views, the score of each, their mean, and the call."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from cxr_jax.pages import figures, html
from cxr_jax.samples import Samples

# Places in the unit square of the drawing.
NETWORK, SCORE, MEAN = 0.42, 0.66, 0.88
ARROW = {"arrowstyle": "-|>", "color": figures.FAINT, "lw": 1.0}


def pipeline(samples: Samples, *, network: str, threshold: float | None) -> str:
    """One study of the gallery on its way through the model.

    As Figure 2 of Rajpurkar et al., MURA, 2017, with the figures of this run.

    Args:
        samples: of the gallery.
        network: what reads a view, in words.
        threshold: a study is called above it; None for no call.

    Returns:
        HTML; nothing where no study of several views is shown whole.
    """
    rows = _whole_study(samples)
    if not len(rows):
        return ""
    mean = float(np.mean(samples.probs[rows].astype(np.float64)))
    call = ""
    if threshold is not None:
        call = "abnormal" if mean > threshold else "below the threshold"
    name = str(samples.cases[rows[0]])
    caption = (
        f"How a study is read: {name}. Each view alone gives a score; the study's is their"
        " mean"
        + (f", called above {threshold:g}." if threshold is not None else ".")
        + " Chosen as the films below."
    )
    drawn = figures.svg(lambda: _draw(samples, rows, network, mean, call))
    return html.figure(drawn, caption, alt=f"study {name}, view by view")


def _whole_study(samples: Samples) -> np.ndarray:
    """Rows of the first study of several views, all of which are there."""
    if samples.cases is None or samples.views is None:
        return np.array([], int)
    for name in dict.fromkeys(samples.cases.tolist()):
        rows = np.flatnonzero(samples.cases == name)
        # A study may stand for several classes; once is enough.
        rows = rows[np.unique(samples.ids[rows], return_index=True)[1]]
        if len(rows) == samples.views[rows[0]] > 1:
            return rows
    return np.array([], int)


def _draw(
    samples: Samples, rows: np.ndarray, network: str, mean: float, call: str
) -> Figure:
    height = 1.15 * len(rows)
    figure = Figure(figsize=(figures.WIDTH * 0.72, height))
    board = figure.add_axes((0, 0, 1, 1))
    board.set(xlim=(0, 1), ylim=(0, 1))
    board.axis("off")
    side = 0.9 / len(rows)
    for k, row in enumerate(rows):
        y = 1 - (k + 0.5) / len(rows)
        wide = side * height / (figures.WIDTH * 0.72)
        film = figure.add_axes((0.03, y - side / 2, wide, side))
        film.imshow(samples.films[row], cmap="gray", vmin=0, vmax=255)
        film.axis("off")
        _arrow(board, (0.04 + wide, y), (NETWORK - 0.1, y))
        _arrow(board, (NETWORK + 0.1, y), (SCORE - 0.045, y))
        _box(board, SCORE, y, f"{samples.probs[row]:.3f}")
        _arrow(board, (SCORE + 0.045, y), (MEAN - 0.1, 0.5))
    frame = {"boxstyle": "round,pad=0.01", "fc": "white", "ec": figures.BLUE, "lw": 0.8}
    board.add_patch(FancyBboxPatch((NETWORK - 0.09, 0.06), 0.18, 0.88, **frame))
    words = f"{network}\n\nthe same for\nevery view"
    board.text(NETWORK, 0.5, words, ha="center", va="center")
    _box(board, MEAN, 0.5, f"mean {mean:.3f}" + (f"\n{call}" if call else ""))
    return figure


def _arrow(board: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    board.annotate("", xy=end, xytext=start, arrowprops=ARROW)


def _box(board: Axes, x: float, y: float, text: str) -> None:
    style = {"boxstyle": "round,pad=0.45", "fc": "white", "ec": figures.BLUE, "lw": 0.8}
    board.text(x, y, text, ha="center", va="center", bbox=style, zorder=3)
