"""cxr_jax: reading radiographs with JAX. Nothing heavy is imported here.

    import cxr_jax
    reader = cxr_jax.load("RUN")              # the workdir of a run, or a weights file
    finding = reader.predict("film.png")      # a path, bytes, an array, or a list of them
    finding.table(), finding.plot()

Research use only. Not for diagnostic use.
"""

import importlib
from typing import Any

__version__ = "0.1.0"

# Name → where it lives; the module is imported when the name is first asked for.
_HOMES = {
    "Finding": "cxr_jax.finding",
    "InputRejected": "cxr_jax.errors",
    "Predictor": "cxr_jax.predict",
    "load": "cxr_jax.loading",
}
__all__ = ["Finding", "InputRejected", "Predictor", "load"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
