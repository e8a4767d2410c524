"""From films to studies: the views of one examination, read together."""

import dataclasses

import numpy as np

from cxr_jax.errors import ConfigError, DataError
from cxr_jax.predictions import Predictions


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Studies:
    """A table with one row per study.

    Attributes:
        table: ids are the names of the studies.
        film: int ``[N]`` of the film table → its study's row.
        views: int ``[S]``, films of each study.
        disagreeing: names of studies whose films differ in a label or in the truth.
    """

    table: Predictions
    film: np.ndarray
    views: np.ndarray
    disagreeing: tuple[str, ...]


def by_study(films: Predictions) -> Studies:
    """Averages the probabilities of the films of every study.

    ``p_s = (1 / V_s) Σ_v p_v`` in float64, whatever the order of the films and however a
    study falls over batches. A study is positive if any of its films is: where the views
    disagree, one view alone may show what is there. It is unknown if all of them are.

    Args:
        films: every film with its study.

    Returns:
        Studies in the order of their names. What was observed of single films stays
        behind, and so do logits and views.

    Raises:
        DataError: a film without a study, or a study of two patients.

    Reference: Rajpurkar et al., MURA, 2017, section 3.
    """
    nameless = np.flatnonzero(films.studies == "")
    if len(nameless):
        raise DataError(
            f"{len(nameless)} of {len(films)} films name no study, such as"
            f" {films.ids[nameless[0]]}; reading by study needs one for each"
        )
    names, first, film, views = np.unique(
        films.studies, return_index=True, return_inverse=True, return_counts=True
    )
    strangers = films.patients != films.patients[first][film]
    if strangers.any():
        name = films.studies[np.flatnonzero(strangers)[0]]
        raise DataError(f"study {name} has films of two patients; one is allowed")
    total = np.zeros((len(names), len(films.classes)), np.float64)
    np.add.at(total, film, films.probs.astype(np.float64))
    labels, differ = _any(films.labels, film, len(names))
    truth = None
    if films.truth is not None:
        truth, other = _any(films.truth, film, len(names))
        differ |= other
    table = Predictions(
        classes=films.classes,
        ids=names,
        patients=films.patients[first],
        studies=names,
        index=films.index[first],
        probs=total / views[:, None],
        labels=labels,
        truth=truth,
        age=None if films.age is None else films.age[first],
        sex=None if films.sex is None else films.sex[first],
    )
    return Studies(
        table=table, film=film, views=views, disagreeing=tuple(names[differ].tolist())
    )


def _any(
    labels: np.ndarray, film: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """1 if any film has 1, else 0 if any has 0, else NaN; and which studies differ."""
    shape = (count, labels.shape[1])
    positive, negative = np.zeros(shape, bool), np.zeros(shape, bool)
    np.logical_or.at(positive, film, labels == 1)
    np.logical_or.at(negative, film, labels == 0)
    found = np.where(positive, 1.0, np.where(negative, 0.0, np.nan))
    return found.astype(np.float32), (positive & negative).any(axis=1)


def by_category(
    table: Predictions, category: np.ndarray, *, names: tuple[str, ...], whole: str
) -> Predictions:
    """One column per category, and one for all of them together.

    The score stands in every column of its row; labels and truth are unknown (NaN) in the
    columns of other categories, so that every figure of a class becomes one of a category.

    Args:
        table: of one class.
        category: str ``[N]``, one of ``names``.
        names: of the categories that get a column.
        whole: name of the last column.

    Raises:
        ConfigError: a table of several classes, or a column named twice.
        DataError: a row of another category.
    """
    if len(table.classes) != 1:
        raise ConfigError(
            f"a table of {', '.join(table.classes)} has no columns by category; one class"
            " is allowed"
        )
    if whole in names or len(set(names)) < len(names):
        raise ConfigError(f"columns {', '.join((*names, whole))}: one name comes twice")
    strange = np.flatnonzero(~np.isin(category, names))
    if len(strange):
        raise DataError(
            f"{table.ids[strange[0]]} is of {str(category[strange[0]])!r}; allowed are"
            f" {', '.join(names)}"
        )
    member = np.column_stack(
        [*(category == name for name in names), np.ones(len(table), bool)]
    )

    def spread(values: np.ndarray | None) -> np.ndarray | None:
        if values is None:
            return None
        return np.where(member, values, np.nan).astype(values.dtype)

    return dataclasses.replace(
        table,
        classes=(*names, whole),
        findings=table.classes * (len(names) + 1),
        member=member,
        probs=np.repeat(table.probs, len(names) + 1, axis=1),
        labels=spread(table.labels),
        truth=spread(table.truth),
    )
