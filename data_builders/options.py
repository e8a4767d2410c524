"""What the command line gives every builder."""

import dataclasses


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Options of one build; a builder takes what concerns it.

    Attributes:
        manual_dir: folder of the released files; None for phantoms.
        num_shards: number of record files; None: TFDS's rule, by size.
        workers: processes that read and reduce films; 0: in this process.
        allow_missing: films that the table names may be absent on disk.
        max_bad_fraction: share of unreadable films that is admitted, in [0, 1].
        images: sub-folder of ``manual_dir`` that holds the films; None: found.
        data_dir: where the dataset will lie; what outlives a failed build (reduced films,
            the list of refused ones) is kept there too. Set by ``build``.
    """

    manual_dir: str | None = None
    num_shards: int | None = None
    workers: int = 0
    allow_missing: bool = False
    max_bad_fraction: float = 0.0
    images: str | None = None
    data_dir: str | None = None
