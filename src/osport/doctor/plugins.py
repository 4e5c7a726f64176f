"""What is wrong with the plugins: those that do not load, those that share a name, hooks that do not exist."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

from osport.doctor.finding import Finding
from osport.plugin.registry import registry

__all__ = ["plugin_findings"]

REMEDY = "update or uninstall the package named, or set OSPORT_DISABLE_PLUGINS to its name"


def plugin_findings() -> Iterator[Finding]:
    """One finding for each problem; one for all when there is none."""
    plugins = registry()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # they are told below, as findings
        backends = plugins.backends()
    broken = [info for info in backends if info.error]
    for info in broken:
        yield Finding("problem", "plugin", f"backend {info.name} ({info.package})", info.error, REMEDY)
    # A conflict of hooks is an error of the backend and a report.
    for message in [one for one in plugins.reported if one not in {info.error for info in broken}]:
        yield Finding("problem", "plugin", "a plugin", message, REMEDY)
    if not broken and not plugins.reported:
        names = ", ".join(f"{info.name} ({info.package or 'this process'})" for info in backends)
        yield Finding("ok", "plugin", f"{len(backends)} backends", names)
