"""The backends on the page "Write a backend" pass the kit that the page says they pass."""

import re
from pathlib import Path

import pytest

from osport.plugin import BackendSpec, register

PAGE = Path(__file__).parents[2] / "docs" / "write_a_backend.md"

for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL):
    exec(compile(block, str(PAGE), "exec"))  # its classes TestShout and TestDrift are collected here


@pytest.fixture(scope="module", autouse=True)
def _offered():
    # Other tests may have emptied the registry since this file was collected.
    for name in ("Shout", "Drift"):
        backend = globals()[name]
        register(BackendSpec(name.lower(), backend, backend.features))
