"""The gallery: films under their activation maps, failures among them."""

import numpy as np

from cxr_jax.pages import html, overlays
from cxr_jax.samples import Samples


def gallery(samples: Samples, *, films: int) -> str:
    """Three films or studies a class: found, missed, falsely seen.

    Args:
        samples: class after class.
        films: number of films of the split, among which the shown ones rank.

    Returns:
        HTML; the films of a class share one colour scale.
    """
    bar, parts = overlays.color_bar(), []
    for name in dict.fromkeys(samples.classes.tolist()):
        rows = np.flatnonzero(samples.classes == name)
        highest = float(samples.maps[rows].max())
        limit = max(highest, 1e-6)
        shown = "".join(_film(samples, row, limit, films) for row in rows)
        high = f"{limit:.2g} logits" if highest > 0 else "no map above 0"
        parts.append(html.heading(name.replace("_", " "), level=3))
        parts.append(html.scale(bar, low="0", high=high))
        parts.append(f'<div class="films">{shown}</div>')
    return "\n".join(parts)


def _film(samples: Samples, row: int, limit: float, films: int) -> str:
    image = overlays.film_with_map(
        samples.films[row], samples.maps[row], samples.boxes[row], limit=limit
    )
    kind, name = str(samples.kinds[row]), str(samples.ids[row])
    prob, rank = samples.probs[row], samples.ranks[row]
    caption = f"{kind}: {name}; score {prob:.3f}, rank {rank:,} of {films:,}"
    return html.figure(image, caption, alt=f"film {name} and its activation map")
