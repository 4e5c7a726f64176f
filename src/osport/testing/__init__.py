"""For the tests of those who write a backend.

The whole test file of a plugin::

    from osport.testing import BackendConformance

    class TestShout(BackendConformance):
        reference = "shout:any"

It needs pytest. ``PLUGIN_TEMPLATE`` is the folder of a copier template for a whole plugin package.
"""

from __future__ import annotations

from pathlib import Path

import pytest

# Before the import: a failing check then shows both sides of what it compared.
pytest.register_assert_rewrite("osport.testing.conformance")

from osport.testing.conformance import BackendConformance  # noqa: E402

__all__ = ["PLUGIN_TEMPLATE", "BackendConformance"]

PLUGIN_TEMPLATE = Path(__file__).parent / "plugin_template"
