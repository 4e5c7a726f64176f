"""The CPU's instructions against those that the engines were built for."""

from __future__ import annotations

import platform
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from osport.doctor.finding import Finding
from osport.doctor.packages import Build

__all__ = ["build_findings", "cpu_flags"]

# ggml's name of an instruction set (ggml/src/ggml-cpu, read 2026-11) and the flag of it in /proc/cpuinfo.
FLAGS = {
    "SSE3": "pni", "SSSE3": "ssse3", "AVX": "avx", "AVX2": "avx2", "F16C": "f16c", "FMA": "fma", "BMI2": "bmi2",
    "AVX_VNNI": "avx_vnni", "AVX512": "avx512f", "AVX512_VBMI": "avx512vbmi", "AVX512_VNNI": "avx512_vnni",
    "AVX512_BF16": "avx512_bf16", "AMX_INT8": "amx_int8", "NEON": "asimd", "DOTPROD": "asimddp", "SVE": "sve",
    "MATMUL_INT8": "i8mm",
}  # fmt: skip
MATTERS = ("AVX", "AVX2", "FMA", "F16C", "NEON", "DOTPROD")
"""Without these an engine runs at a fraction of its speed; what is newer brings tens of percent."""


def build_findings(builds: Iterable[Build], flags: frozenset[str] | None = None) -> Iterator[Finding]:
    """Compare each engine's own account of its build with the CPU; ``flags`` default to those of this machine."""
    flags = cpu_flags() if flags is None else flags
    machine = f"this CPU ({platform.machine()})"
    if not flags:
        yield Finding("note", "cpu", machine, "its instructions cannot be read on this platform")
        return
    has = [name for name, flag in FLAGS.items() if flag in flags]
    yield Finding("ok", "cpu", machine, f"has {', '.join(has)}")
    if platform.machine() in ("x86_64", "AMD64") and "avx2" not in flags:
        yield Finding(
            "problem", "cpu", machine, "has no AVX2, which the prebuilt wheels of the engines need",
            "build llama-cpp-python on this machine: pip install --no-binary llama-cpp-python llama-cpp-python",
        )  # fmt: skip
    for build in builds:
        if build.system_info:
            yield _compared(build, flags)


def cpu_flags() -> frozenset[str]:
    """The instruction sets of this CPU by the kernel's names; empty where /proc/cpuinfo does not tell them."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    except OSError:
        return frozenset()
    line = re.search(r"^(?:flags|Features)\s*:(.*)$", text, re.MULTILINE)
    return frozenset(line.group(1).split()) if line else frozenset()


def _compared(build: Build, flags: frozenset[str]) -> Finding:
    where = f"{build.name} {build.version}"
    built = {name for name, on in re.findall(r"(\w+) = (\d)", build.system_info) if on == "1"} & FLAGS.keys()
    lacking = sorted(name for name in built if FLAGS[name] not in flags)
    rebuild = f"pip install --force-reinstall --no-cache-dir --no-binary {build.name} {build.name}"
    if lacking:
        what = f"built with {', '.join(lacking)}, which this CPU does not have: it will end the process"
        return Finding("problem", "cpu", where, what, rebuild)
    unused = [name for name, flag in FLAGS.items() if flag in flags and name not in built]
    if any(name in MATTERS for name in unused):
        return Finding("problem", "cpu", where, f"built without {', '.join(unused)}: many times slower", rebuild)
    if unused:
        what = f"fits this CPU; built without {', '.join(unused)}, which this CPU has"
        return Finding("note", "cpu", where, what, "nothing, unless every tenth of the speed counts")
    return Finding("ok", "cpu", where, "built for all that this CPU has")
