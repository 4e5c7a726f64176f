"""What is wrong with this machine, its engines, its plugins, or with one model: found before a call finds it."""

from __future__ import annotations

from osport.core.secrets import shown_url
from osport.doctor.builds import build_findings
from osport.doctor.finding import Finding
from osport.doctor.gpu import gpu_findings
from osport.doctor.packages import asked_builds, package_findings
from osport.doctor.plugins import plugin_findings
from osport.doctor.reference import reference_findings
from osport.errors import UsageError
from osport.plugin.registry import parse_reference

__all__ = ["Finding", "diagnose"]


def diagnose(reference: str | None = None) -> tuple[Finding, ...]:
    """Look at CPU, GPU, packages and plugins, and at the model of ``reference`` where one is given.

    With a reference only the packages that its backend needs are looked at. Engines are imported in processes
    of their own, for a wheel that was built for another CPU ends the process that imports it. No model is
    loaded, no question is asked; a server is asked for what it tells of itself, without a key, and by the
    backend with its own.
    """
    backend: str | None = None
    if reference is not None:
        try:
            backend = parse_reference(reference).backend
        except UsageError as error:
            return (Finding("problem", "reference", shown_url(reference), str(error)),)
    builds = asked_builds(backend)
    return (
        *build_findings(builds),
        *gpu_findings(builds),
        *package_findings(builds, backend),
        *plugin_findings(),
        *(reference_findings(reference) if reference is not None else ()),
    )
