"""The entry points of installed packages: who is admitted, and what to call whoever is at fault."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable
from importlib.metadata import EntryPoint, distributions, entry_points

from osport.errors import PluginError, PluginLoadError

__all__ = ["BACKENDS_GROUP", "OWN_PACKAGE", "PLUGINS_GROUP", "admitted_entries", "package_of", "said"]

BACKENDS_GROUP = "osport.backends"
PLUGINS_GROUP = "osport.plugins"
OWN_PACKAGE = "osport"


def admitted_entries(group: str, report: Callable[[PluginError], None]) -> list[EntryPoint]:
    """The entry points of this group that the environment does not shut out; none of them is loaded."""
    return [entry for entry in _readable_entries(group, report) if _admitted(entry)]


def package_of(entry: EntryPoint) -> str:
    """The name under which the package can be uninstalled; its module's where its metadata have none."""
    name = entry.dist.name if entry.dist is not None else None
    return name or entry.value.partition(":")[0].partition(".")[0]


def said(error: BaseException) -> str:
    """The kind of an error and its message, also where the message itself cannot be had."""
    return "".join(traceback.format_exception_only(error)).strip()


def _readable_entries(group: str, report: Callable[[PluginError], None]) -> list[EntryPoint]:
    try:
        return list(entry_points(group=group))
    except Exception:  # noqa: BLE001 - one package's file that cannot be parsed; below it is found and named
        found: dict[str, list[EntryPoint]] = {}
    for package in distributions():
        try:
            entries = [entry for entry in package.entry_points if entry.group == group]
        except Exception as error:  # noqa: BLE001
            report(PluginLoadError(f"the entry points of {package.name} cannot be read: {said(error)}"))
        else:
            found.setdefault(str(package.name).lower(), entries)  # what comes first on the path is what is imported
    return [entry for entries in found.values() for entry in entries]


def _admitted(entry: EntryPoint) -> bool:
    package = package_of(entry).lower()
    if package == OWN_PACKAGE:
        return True
    only, disabled = _names("OSPORT_PLUGINS"), _names("OSPORT_DISABLE_PLUGINS") or frozenset()
    names = {package, entry.name.lower()}
    return (only is None or bool(names & only)) and not names & disabled


def _names(variable: str) -> frozenset[str] | None:
    value = os.environ.get(variable)
    if value is None:
        return None
    return frozenset(name.strip().lower() for name in value.split(",") if name.strip())
