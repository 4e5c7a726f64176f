"""For the tests of those who write a backend.

The whole test file of a plugin::

    from osport.testing import BackendConformance

    class TestShout(BackendConformance):
        reference = "shout:any"

It needs pytest.
"""

from __future__ import annotations

from osport.testing.conformance import BackendConformance

__all__ = ["BackendConformance"]
