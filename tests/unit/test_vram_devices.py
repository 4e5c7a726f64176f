"""Devices by name, their usable memory, and what this machine has."""

import sys
import types

import pytest

from osport.data import load
from osport.errors import UsageError
from osport.vram import Device
from osport.vram.devices import devices_of

GIB, MIB = 2**30, 2**20


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("RTX 4090", "RTX 4090"), ("rtx4090", "RTX 4090"), ("NVIDIA GeForce RTX 4090", "RTX 4090"),
        ("H100", "H100 SXM"), ("Apple M4 Max", "M4 Max"), ("Radeon RX 7900 XTX", "RX 7900 XTX"),
        ("a100", "A100 SXM 80GB"),
    ],
)  # fmt: skip
def test_names_are_found_however_they_are_written(name, known):
    assert Device.named(name).name == known


def test_usable_is_less_than_nominal():
    rows = load("devices.toml")["device"]
    assert len(rows) >= 55
    for name, row in rows.items():
        device = Device.named(name)
        assert 0.7 * row["nominal_gib"] * GIB <= device.usable <= 1.001 * row["nominal_gib"] * GIB * 1.02, name
        assert device.source
        assert device.bandwidth > 1e11
    assert Device.named("RTX 4090").usable == 24077 * MIB


def test_memory_variants():
    small, large = Device.named("M4 Max 64GB"), Device.named("M4 Max")
    assert small.usable < large.usable
    assert small.unified
    assert small.usable == 48 * GIB
    with pytest.raises(UsageError, match="no variant"):
        Device.named("RTX 3060 512GB")


def test_lists_counts_and_devices():
    assert len(devices_of("2xH100")) == 2
    assert len(devices_of("4 x RTX 3090")) == 4
    assert len(devices_of(["RTX 3090", Device("own", GIB)])) == 2
    for bad in ("0xH100", "99999xH100"):
        with pytest.raises(UsageError):
            devices_of(bad)
    with pytest.raises(UsageError, match="no device"):
        devices_of([])


def test_an_unknown_device_names_the_nearest():
    with pytest.raises(UsageError, match="RTX 4080"):
        Device.named("RTX 4085")


@pytest.mark.parametrize(
    "wrong", [{"usable": 0}, {"usable": -1}, {"usable": 1, "bandwidth": 0.0}, {"usable": 1, "vendor": "x"}]
)
def test_devices_that_cannot_be_are_refused(wrong):
    with pytest.raises(UsageError):
        Device("card", **wrong)


def test_this_machine_has_memory():
    devices = devices_of("local")
    assert devices
    assert all(device.usable > 64 * MIB for device in devices)


def test_cards_that_the_driver_reports_come_first(monkeypatch):
    fake = types.ModuleType("pynvml")
    fake.NVMLError = type("NVMLError", (Exception,), {})
    fake.nvmlInit = fake.nvmlShutdown = lambda: None
    fake.nvmlDeviceGetCount = lambda: 2
    fake.nvmlDeviceGetHandleByIndex = lambda index: index
    fake.nvmlDeviceGetName = lambda handle: "NVIDIA GeForce RTX 4090" if handle == 0 else "NVIDIA X9000"
    fake.nvmlDeviceGetMemoryInfo = lambda handle: types.SimpleNamespace(free=(20 + handle) * GIB, total=24 * GIB)
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    first, second = devices_of("local")
    assert (first.usable, first.bandwidth) == (20 * GIB, Device.named("RTX 4090").bandwidth)
    assert (second.usable, second.bandwidth) == (21 * GIB, None)


def test_a_driver_that_fails_leaves_the_host(monkeypatch):
    fake = types.ModuleType("pynvml")
    fake.NVMLError = type("NVMLError", (Exception,), {})

    def broken():
        raise fake.NVMLError("driver not loaded")

    fake.nvmlInit = broken
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    assert devices_of("local")[0].vendor in {"cpu", "apple"}
