"""Builders of datasets: released files, or phantoms, in; ArrayRecord datasets out."""

from data_builders.install import available, build
from data_builders.options import Options
from data_builders.workers import cores

__all__ = ["Options", "available", "build", "cores"]
