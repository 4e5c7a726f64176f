"""The engines' packages: installed, importable, and of a version that osport was tested with."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from attrs import frozen

from osport.data import load
from osport.doctor.finding import Finding

__all__ = ["Build", "asked_builds", "package_findings"]

IMPORT_SECONDS = 120
IMPORTS_AT_ONCE = 2


@frozen
class Build:
    """One package as it is here. ``version`` is empty when it is not installed, ``failure`` says why it cannot be
    imported; ``system_info`` and ``gpu`` are what it says of its own build, where it does."""

    name: str
    extra: str
    version: str = ""
    failure: str = ""
    system_info: str = ""
    gpu: bool | None = None


def asked_builds(backend: str | None) -> tuple[Build, ...]:
    """The packages of the table, each imported in a process of its own; with ``backend`` only those it needs."""
    rows = load("engines.toml")["package"].items()
    wanted = [(name, row) for name, row in rows if backend is None or backend in row["backends"]]
    with ThreadPoolExecutor(IMPORTS_AT_ONCE) as pool:
        return tuple(pool.map(lambda named: _build(*named), wanted))


def package_findings(builds: Iterable[Build], backend: str | None) -> Iterator[Finding]:
    """What is missing, broken, or of an untested version. ``backend``: the one that cannot do without them."""
    for build in builds:
        install = f"pip install 'osport[{build.extra}]'"
        if not build.version:
            level = "note" if backend is None else "problem"
            needed = f", and {backend} needs it" if backend else ""
            yield Finding(level, "package", build.name, f"not installed{needed}", install)  # type: ignore[arg-type]
        elif build.failure:
            yield Finding(
                "problem", "package", f"{build.name} {build.version}", f"installed, but {build.failure}",
                f"reinstall it: pip install --force-reinstall --no-cache-dir {build.name}",
            )  # fmt: skip
        else:
            yield _range_finding(build)


def _range_finding(build: Build) -> Finding:
    table = load("engines.toml")
    row = table["package"][build.name]
    where, tested = f"{build.name} {build.version}", f"{row['oldest']} to {row['newest']}"
    if _numbers(build.version) < _numbers(row["oldest"]):
        remedy = f"pip install -U 'osport[{build.extra}]'"
        return Finding("problem", "package", where, f"older than what osport works with ({tested})", remedy)
    if _numbers(build.version) > _numbers(row["newest"]):
        remedy = f"if it misbehaves, pip install '{build.name}=={row['newest']}'"
        return Finding("note", "package", where, f"newer than what osport was tested with ({tested})", remedy)
    return Finding("ok", "package", where, f"within the tested range ({tested})")


def _build(name: str, row: dict[str, Any]) -> Build:
    installed = next(filter(None, map(_installed, (name, *row.get("also", ())))), "")
    if not installed:
        return Build(name, row["extra"])
    arguments = [row["module"], row.get("system_info", ""), row.get("gpu", "")]
    command = [sys.executable, "-m", "osport.doctor.engine_child", *arguments]
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=IMPORT_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return Build(name, row["extra"], installed, f"importing it took more than {IMPORT_SECONDS} s")
    if run.returncode != 0:
        return Build(name, row["extra"], installed, _why(run.returncode, run.stderr))
    said = json.loads(run.stdout.splitlines()[-1])
    return Build(name, row["extra"], installed, "", said["info"], said["gpu"])


def _installed(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return ""


def _why(code: int, stderr: str) -> str:
    if code == -signal.SIGILL:
        return "importing it ends the process with SIGILL: it was built for another CPU than this one"
    if code < 0:
        return f"importing it ends the process with {signal.Signals(-code).name}"
    return f"it cannot be imported: {stderr.strip().splitlines()[-1] if stderr.strip() else f'exit code {code}'}"


def _numbers(text: str) -> tuple[int, ...]:
    numbers = [int(part) for part in re.findall(r"\d+", text.partition("+")[0])]
    while numbers and numbers[-1] == 0:
        numbers.pop()  # 2.12 and 2.12.0 are one version
    return tuple(numbers)
