"""Installed versions of the packages that results depend on."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

PACKAGES = ("sc-drugresp", "numpy", "scipy", "scikit-learn", "pandas", "anndata", "scanpy", "torch")


def package_versions() -> dict[str, str]:
    """Version of each package of :data:`PACKAGES` that is installed."""
    out = {}
    for name in PACKAGES:
        try:
            out[name] = version(name)
        except PackageNotFoundError:
            continue
    return out
