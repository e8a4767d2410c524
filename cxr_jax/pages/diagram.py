"""Boxes and arrows: a network as it reads a film, drawn from its parts and what they read."""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from cxr_jax.pages import figures

# Inches: heights of boxes with and without weights, and what lies between.
TALL, LOW, GAP, MARGIN = 0.4, 0.26, 0.34, 0.12
BOX, BETWEEN = 2.9, 0.4
SHAPE = {"size": 6.5, "color": figures.FAINT, "va": "center"}
BEND = 0.62  # of the gap, where arrows turn
INPUT, OUTPUT = "input", "output"
LINE = {"color": figures.FAINT, "lw": 0.9}
ARROW = LINE | {"arrowstyle": "-|>", "shrinkA": 0, "shrinkB": 0}

Part = Mapping[str, Any]


def draw(model: Part, *, classes: int) -> bytes:
    """The parts of ``model.json`` from the film at the top to the findings below.

    Args:
        model: see ``outline.outline``.
        classes: number of findings.

    Returns:
        SVG. Parts that do not wait for each other stand side by side.
    """
    boxes = _boxes(model, classes)
    places = arrange({name: box.inputs for name, box in boxes.items()})
    return figures.svg(lambda: _draw(boxes, places))


def times(shape: Sequence[int]) -> str:
    """``7 × 7 × 1024``."""
    return " × ".join(map(str, shape))


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Box:
    """What stands in a box, and what leaves it."""

    title: str
    below: str = ""
    shape: str = ""
    inputs: Sequence[str] = ()
    weights: bool = False
    frozen: bool = False

    @property
    def height(self) -> float:
        """Inches."""
        return TALL if self.below else LOW


@dataclasses.dataclass(frozen=True, kw_only=True)
class Places:
    """Where boxes stand, in columns and rows, and the ways of the arrows between them."""

    at: Mapping[str, tuple[float, int]]
    ways: Sequence[tuple[str, ...]]  # names; those in between are of no box
    columns: int
    rows: int


def _boxes(model: Part, classes: int) -> dict[str, _Box]:
    """By name, with the film and the findings at both ends."""
    boxes = {INPUT: _Box(title="film", shape=times(model["input"]))}
    for part in model["parts"]:
        if part["shape"] is None:
            continue  # arrays that stand in no part
        numbers = part["parameters"] + part["statistics"]
        words = [part["kind"], f"{numbers:,} numbers" if numbers else ""]
        boxes[part["name"]] = _Box(
            title=part["name"],
            below=" · ".join(filter(None, words)),
            shape=times(part["shape"]),
            inputs=part["inputs"],
            weights=bool(part["parameters"]),
            frozen=bool(part["parameters"]) and not part["trainable"][0],
        )
    title = f"{classes} findings, a probability each"
    title = title if classes != 1 else "1 finding, a probability"
    boxes[OUTPUT] = _Box(title=title, inputs=model["outputs"])
    return boxes


def arrange(inputs: Mapping[str, Sequence[str]]) -> Places:
    """A row for each step that must wait, and columns that keep arrows short.

    An arrow past a row holds a place there, so that it runs beside the boxes.

    Args:
        inputs: name → names that it reads, which come before it.
    """
    row: dict[str, int] = {}
    for name, read in inputs.items():
        row[name] = 1 + max((row[r] for r in read), default=-1)
    rows: list[list[str]] = [[] for _ in range(max(row.values()) + 1)]
    above: dict[str, list[str]] = {}
    ways = []
    for name, read in inputs.items():
        rows[row[name]].append(name)
        for source in read:
            between = [
                f"{source}→{name}@{k}" for k in range(row[source] + 1, row[name])
            ]
            for k, place in enumerate(between, start=row[source] + 1):
                rows[k].append(place)
            way = (source, *between, name)
            ways.append(way)
            for first, second in itertools.pairwise(way):
                above.setdefault(second, []).append(first)
    at: dict[str, tuple[float, int]] = {}
    for k, names in enumerate(rows):
        means = {n: _mean([at[a][0] for a in above.get(n, ())]) for n in names}
        names.sort(key=lambda n: means[n])
        for place, name in enumerate(names):
            at[name] = (place - (len(names) - 1) / 2, k)
    columns = max(map(len, rows))
    return Places(at=at, ways=ways, columns=columns, rows=len(rows))


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def _draw(boxes: Mapping[str, _Box], places: Places) -> Figure:
    high = [LOW] * places.rows
    for name, box in boxes.items():
        row = places.at[name][1]
        high[row] = max(high[row], box.height)
    width = places.columns * (BOX + BETWEEN) - BETWEEN + 2 * MARGIN
    height = sum(high) + GAP * (places.rows - 1) + 2 * MARGIN + 0.16
    figure = Figure(figsize=(width * min(1.0, figures.WIDTH / width), height))
    board = figure.add_axes((0, 0, 1, 1))
    board.set(xlim=(-width / 2, width / 2), ylim=(0, height))
    board.axis("off")
    middle = [
        height - MARGIN - sum(high[:k]) - h / 2 - k * GAP for k, h in enumerate(high)
    ]
    told = set()
    for way in places.ways:
        first, last = boxes[way[0]], boxes[way[-1]]
        points = [
            (places.at[n][0] * (BOX + BETWEEN), middle[places.at[n][1]]) for n in way
        ]
        x, y = points[0]
        points[0] = (x, y - first.height / 2)
        points[-1] = (points[-1][0], points[-1][1] + last.height / 2)
        tops = [middle[places.at[n][1]] + high[places.at[n][1]] / 2 for n in way]
        _arrow(board, points, tops[1:])
        if way[0] not in told:
            board.text(x + 0.06, points[0][1] - 0.1, first.shape, **SHAPE)
        told.add(way[0])
    for name, box in boxes.items():
        column, row = places.at[name]
        _place(board, column * (BOX + BETWEEN), middle[row], box)
    return figure


def _arrow(
    board: Axes, points: Sequence[tuple[float, float]], tops: Sequence[float]
) -> None:
    """Down from the first point to the last, turning above the rows on the way."""
    (x, y), *others = points
    line = [(x, y)]
    for (to, below), top in zip(others, tops, strict=True):
        if to != x:
            turn = top + (1 - BEND) * GAP
            line += [(x, turn), (to, turn)]
        x, y = to, below
    board.plot(*zip(*line, strict=True), **LINE, solid_capstyle="butt")
    board.annotate("", xy=(x, y), xytext=line[-1], arrowprops=ARROW)


def _place(board: Axes, x: float, y: float, box: _Box) -> None:
    style = "square,pad=0" if box.weights else f"round,pad=0,rounding_size={LOW / 2}"
    board.add_patch(
        FancyBboxPatch(
            (x - BOX / 2, y - box.height / 2),
            BOX,
            box.height,
            boxstyle=style,
            fc="#eef5f9" if box.weights else "white",
            ec=figures.BLUE if box.weights else figures.FAINT,
            lw=0.8,
            ls="--" if box.frozen else "-",
        )
    )
    middle = {"ha": "center", "va": "center"}
    shift = 0.085 if box.below else 0.0
    weight = "bold" if box.weights else "normal"
    board.text(x, y + shift, box.title, size=8, weight=weight, **middle)
    board.text(x, y - shift, box.below, size=6.5, **middle)
