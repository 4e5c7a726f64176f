"""Devices: usable memory, bandwidth, and what this machine has."""

from __future__ import annotations

import difflib
import platform
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

from attrs import frozen

from osport.data import load
from osport.errors import UsageError
from osport.vram.estimate import GIB, MIB, gib

__all__ = ["Device", "DeviceLike", "devices_of"]

_COUNT = re.compile(r"^(\d+)\s*[x×*]\s*(.+)$", re.IGNORECASE)
_MEMORY = re.compile(r"^(.*?)[\s-]+(\d+)\s*(?:GB|GiB|G)$", re.IGNORECASE)
_NOISE = re.compile(r"\b(?:nvidia|geforce|amd|radeon|apple|intel|laptop|gpu)\b|[\s\-_/]+", re.IGNORECASE)
_MOST_DEVICES = 1024


@frozen
class Device:
    """One device. ``usable`` bytes are what a process can get, not what the box says.

    ``bandwidth`` is in bytes per second, None when not known; ``unified`` memory is shared with the host.
    """

    name: str
    usable: int
    bandwidth: float | None = None
    vendor: str = "nvidia"
    unified: bool = False
    source: str = "given by the caller"

    def __attrs_post_init__(self) -> None:
        if self.usable <= 0:
            raise UsageError(f"{self.name}: usable memory is a positive number of bytes, not {self.usable}")
        if self.bandwidth is not None and self.bandwidth <= 0:
            raise UsageError(f"{self.name}: bandwidth is a positive number of bytes per second, not {self.bandwidth}")
        if self.vendor not in {"nvidia", "amd", "intel", "apple", "cpu"}:
            raise UsageError(f"{self.name}: vendor is nvidia, amd, intel, apple or cpu, not {self.vendor!r}")

    @classmethod
    def named(cls, name: str) -> Device:
        """``RTX 4090``, ``M4 Max 64GB``. Raises UsageError with the nearest names."""
        rows = load("devices.toml")["device"]
        names = {_plain(alias): key for key, row in rows.items() for alias in (key, *row.get("aliases", ()))}
        found = names.get(_plain(name))
        memory = None
        if found is None:
            sized = _MEMORY.match(name.strip())
            if sized:
                found, memory = names.get(_plain(sized.group(1))), int(sized.group(2))
        if found is None:
            near = difflib.get_close_matches(_plain(name), names, 4, 0.5)
            hint = ", ".join(dict.fromkeys(names[key] for key in near)) or ", ".join(list(rows)[:8]) + ", ..."
            raise UsageError(f"unknown device {name!r}; nearest known: {hint}; or give Device(name, usable=bytes)")
        return _from_row(found, rows[found], memory)

    @classmethod
    def local(cls) -> tuple[Device, ...]:
        """What this machine has: NVIDIA cards (with nvidia-ml-py), Apple silicon, else the host's memory.

        ``usable`` is what is free now, not what is installed.
        """
        cards = _nvidia()
        if cards:
            return cards
        if platform.system() == "Darwin" and platform.machine() == "arm64":
            apple = _apple()
            if apple is not None:
                return (apple,)
        return (_host(),)

    def __str__(self) -> str:
        return f"{self.name} ({gib(self.usable)} usable)"


DeviceLike: TypeAlias = str | Device | Sequence[str | Device]


def devices_of(given: DeviceLike) -> tuple[Device, ...]:
    """``"RTX 4090"``, ``"2xH100"``, ``["RTX 3090"] * 2``, ``Device(...)``, ``"local"``."""
    if isinstance(given, Device):
        return (given,)
    if isinstance(given, str):
        text = given.strip()
        if text.lower() == "local":
            return Device.local()
        many = _COUNT.match(text)
        if many:
            count = int(many.group(1))
            if not 1 <= count <= _MOST_DEVICES:
                raise UsageError(f"{given!r}: from 1 to {_MOST_DEVICES} devices")
            return (Device.named(many.group(2)),) * count
        return (Device.named(text),)
    found = tuple(device for item in given for device in devices_of(item))
    if not found:
        raise UsageError("no device was given")
    return found


def _plain(name: str) -> str:
    return _NOISE.sub("", name).lower()


def _from_row(name: str, row: dict[str, Any], memory: int | None) -> Device:
    share = load("devices.toml")["usable_share"]
    unified = bool(row.get("unified", False))
    nominal = row["nominal_gib"] if memory is None else memory
    seen = row.get("usable_mib")
    if memory is not None and memory > 2 * row["nominal_gib"]:
        raise UsageError(f"{name} has no variant of {memory} GB; {row['nominal_gib']} GiB are known")
    if seen is not None and nominal == row["nominal_gib"]:
        usable, source = seen * MIB, f"{row['source']}; usable memory as seen in logs"
    else:
        part = share["apple"] if row["vendor"] == "apple" else share["discrete"]
        usable, source = int(nominal * GIB * part), f"{row['source']}; usable memory: {part:.1%} of {nominal} GiB"
    label = name if memory is None else f"{name} {memory}GB"
    return Device(label, usable, row["bandwidth_gb_s"] * 1e9, row["vendor"], unified, source)


def _nvidia() -> tuple[Device, ...]:
    try:
        import pynvml
    except ImportError:
        return ()
    try:
        pynvml.nvmlInit()
        try:
            handles = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]
            return tuple(
                _card(str(pynvml.nvmlDeviceGetName(handle)), int(pynvml.nvmlDeviceGetMemoryInfo(handle).free))
                for handle in handles
            )
        finally:
            pynvml.nvmlShutdown()
    except pynvml.NVMLError:
        return ()


def _card(name: str, free: int) -> Device:
    """A card that the driver names: free memory as it is now, bandwidth from the catalogue when it is there."""
    try:
        bandwidth = Device.named(name).bandwidth
    except UsageError:
        bandwidth = None
    return Device(name, max(1, free), bandwidth, "nvidia", False, "the driver's free memory (nvidia-ml-py)")


def _apple() -> Device | None:
    try:
        run = subprocess.run(["sysctl", "-n", "hw.memsize", "machdep.cpu.brand_string"], capture_output=True, timeout=5)
        size, _, brand = run.stdout.decode().partition("\n")
        memory = int(size)
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    share = load("devices.toml")["usable_share"]["apple"]
    try:
        bandwidth = Device.named(brand.strip()).bandwidth
    except UsageError:
        bandwidth = None
    return Device(brand.strip(), int(memory * share), bandwidth, "apple", True, f"sysctl hw.memsize, {share:.0%} of it")


def _host() -> Device:
    share = load("devices.toml")["usable_share"]["host"]
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        table = {key: int(rest.split()[0]) * 1024 for key, _, rest in (line.partition(":") for line in lines)}
        free = table["MemAvailable"]
    except (OSError, ValueError, KeyError, IndexError) as error:
        raise UsageError(
            f"the memory of this machine cannot be read ({error}); give Device(name, usable=bytes)"
        ) from error
    source = f"/proc/meminfo MemAvailable, {share:.0%} of it"
    return Device("CPU", max(1, int(free * share)), None, "cpu", True, source)
