"""Lifecycle: found, opened, closed, opened again; quiet, and honest about what it is."""

from __future__ import annotations

import pytest

from osport.core.types import Message, Request
from osport.errors import OsportError
from osport.model import Model
from osport.plugin.registry import parse_reference, registry
from osport.testing.conformance.area import Area

__all__ = ["LifecycleChecks"]

DECLARED = (
    "chat", "raw_prompt", "prefill", "stream", "count_tokens", "tools", "thinking", "images", "logprobs", "score",
)  # fmt: skip


class LifecycleChecks(Area):
    """What must hold from the entry point to ``close``."""

    def test_it_is_found_through_its_entry_point(self) -> None:
        """The registry knows the name."""
        assert parse_reference(self.reference).backend in {info.name for info in registry().backends()}

    def test_features_name_all_that_it_can_do(self, model: Model) -> None:
        """``features`` holds what ``capabilities`` declares, so that other backends' errors can point here."""
        can = model.capabilities
        declared = {name for name in DECLARED if getattr(can, name)} | can.sampling | can.constraints
        features = registry().spec(model.ref.backend).features
        assert not declared - features, f"not in features: {', '.join(sorted(declared - features))}"

    def test_facts_name_their_sources(self, model: Model) -> None:
        """Every fact says where it comes from."""
        assert all(model.facts.fact(name).source for name in model.facts)

    def test_it_is_quiet(self, capfd: pytest.CaptureFixture[str]) -> None:
        """Opening, asking and closing print nothing."""
        capfd.readouterr()
        with self.make_model() as model:
            self._ask(model)
        said = capfd.readouterr()
        assert said.out + said.err == ""

    def test_it_can_be_loaded_before_it_is_asked(self) -> None:
        """``load`` twice is harmless, and the answers are the same as without it."""
        with self.make_model() as model:
            model.load()
            model.load()
            assert isinstance(self._ask(model).text, str)

    def test_closing_twice_is_harmless(self) -> None:
        """Also for the backend itself, and for a model that was never asked."""
        model = self.make_model()
        self._ask(model)
        model.close()
        model.close()
        model.backend.close()
        self.make_model().close()

    def test_a_call_after_closing_is_an_error(self) -> None:
        """Of the tree; the process survives it, past osport's own guard, too."""
        model = self.make_model()
        self._ask(model)
        model.close()
        request = self.asking(Request([Message.user(self.prompt)]))
        with pytest.raises(OsportError):
            model.generate(request)
        with pytest.raises(OsportError):
            model.backend.generate(request)

    def test_it_can_be_opened_again(self) -> None:
        """After ``close`` nothing is left in the way of the next one: no port, no lock, no memory."""
        for _ in range(2):
            with self.make_model() as model:
                assert isinstance(self._ask(model).text, str)
