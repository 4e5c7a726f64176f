"""The GPU, its driver, and whether the engines were built for it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from osport.doctor.finding import Finding
from osport.doctor.packages import Build
from osport.vram.estimate import gib

__all__ = ["gpu_findings"]

KERNEL_DRIVER = Path("/proc/driver/nvidia/version")


def gpu_findings(builds: Iterable[Build]) -> Iterator[Finding]:
    """NVIDIA's driver and cards, and the engines that would leave them idle."""
    try:
        import pynvml
    except ImportError:
        if KERNEL_DRIVER.exists():
            what, remedy = "there is an NVIDIA driver, and nothing to ask it with", "pip install 'osport[gpu]'"
            yield Finding("note", "gpu", "nvidia-ml-py", what, remedy)
        else:
            yield Finding("ok", "gpu", "this machine", "no NVIDIA driver; the engines run on the CPU")
        return
    try:
        pynvml.nvmlInit()
        try:
            found = list(_cards(pynvml))
        finally:
            pynvml.nvmlShutdown()
    except pynvml.NVMLError as error:
        if KERNEL_DRIVER.exists():
            remedy = "reboot after a driver update, or reinstall the driver: nvidia-smi must work"
            yield Finding("problem", "gpu", "NVIDIA driver", f"loaded, but does not answer: {error}", remedy)
        else:
            yield Finding("ok", "gpu", "this machine", "no NVIDIA driver; the engines run on the CPU")
        return
    yield from found
    if found:
        for build in builds:
            if build.gpu is False:
                remedy = (
                    f"CMAKE_ARGS=-DGGML_CUDA=on pip install --force-reinstall --no-cache-dir "
                    f"--no-binary {build.name} {build.name}"
                )
                what = "built without GPU support: it leaves the GPU idle"
                yield Finding("problem", "gpu", f"{build.name} {build.version}", what, remedy)


def _cards(nvml: Any) -> Iterator[Finding]:
    driver = nvml.nvmlSystemGetDriverVersion()
    cuda = nvml.nvmlSystemGetCudaDriverVersion()
    for number in range(nvml.nvmlDeviceGetCount()):
        card = nvml.nvmlDeviceGetHandleByIndex(number)
        memory = nvml.nvmlDeviceGetMemoryInfo(card)
        what = (
            f"{gib(memory.free)} of {gib(memory.total)} free, driver {driver}, CUDA {cuda // 1000}.{cuda % 1000 // 10}"
        )
        yield Finding("ok", "gpu", f"GPU {number}, {nvml.nvmlDeviceGetName(card)}", what)
