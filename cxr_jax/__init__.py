"""cxr_jax: reading radiographs with JAX. Nothing heavy is imported here."""

__version__ = "0.1.0"
