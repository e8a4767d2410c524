"""A strict session: warnings are errors, rank promotion raises, compilations are cached."""

import os
import pathlib

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("KERAS_BACKEND", "jax")

import jax
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
CACHE = os.environ.get("JAX_COMPILATION_CACHE_DIR") or str(ROOT / ".cache" / "jax")
# Child processes of the tests share the cache through the environment.
os.environ["JAX_COMPILATION_CACHE_DIR"] = CACHE

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_compilation_cache_dir", CACHE)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)


@pytest.fixture(scope="session")
def real_dir() -> pathlib.Path:
    """Folder of real films, tables and predictions; they are never part of the project."""
    folder = ROOT.parent / "shared" / "real"
    if not folder.is_dir():
        pytest.skip(f"no real data: {folder.name} is not beside the project")
    return folder
