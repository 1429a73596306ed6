"""Packages that only some commands need, each from an extra in setup.cfg."""

from __future__ import annotations

import importlib.util

from ssna.errors import PackageError


def check_installed(package: str, extra: str, what: str, otherwise: str = "") -> None:
    """Return if a package can be imported.

    Args:
        package: its name as it is imported.
        extra: of ssna, that brings it.
        what: what needs it, for the message.
        otherwise: what else may be done.

    Raises:
        PackageError: if not.
    """
    if importlib.util.find_spec(package) is None:
        also = f", {otherwise}" if otherwise else ""
        raise PackageError(
            f"{what} needs the package {package}, which is not installed. "
            f"Install it: pip install 'ssna[{extra}]'{also}."
        )
