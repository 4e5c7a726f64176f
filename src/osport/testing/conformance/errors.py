"""Errors: of the tree, with names, without secrets, and not the end of the model."""

from __future__ import annotations

import pytest

from osport.core.types import Constraint, Message, Request
from osport.errors import BadResponse, ContextOverflow, ContractViolation, OsportError, UnsupportedFeature, UsageError
from osport.model import Model
from osport.testing.conformance.area import Area

__all__ = ["ErrorChecks"]

MALFORMED = {
    "grammar": Constraint("grammar", 'root ::= nowhere | "'),
    "regex": Constraint("regex", "(unclosed"),
    "json_schema": Constraint("json_schema", {"type": "no such type"}),
}


class ErrorChecks(Area):
    """What must come of a call that cannot be answered."""

    def test_an_unknown_option_is_refused(self) -> None:
        """Options are not swallowed."""
        with pytest.raises(UsageError, match="no_such_option"):
            Model(self.reference, **self.options, no_such_option=1)

    def test_a_prompt_that_does_not_fit_is_refused(self, model: Model) -> None:
        """A long prompt is never trimmed."""
        with pytest.raises(ContextOverflow):
            model.generate(self._request(model, self._too_long(model)))

    def test_after_an_error_the_model_still_answers(self, model: Model) -> None:
        """A failed call costs nothing but itself."""
        with pytest.raises(OsportError):
            model.generate(self._request(model, self._too_long(model)))
        assert isinstance(self._ask(model).text, str)

    @pytest.mark.parametrize("kind", sorted(MALFORMED))
    def test_a_malformed_form_is_an_error_and_no_more(self, model: Model, kind: str) -> None:
        """What reaches the backend past osport's own checks ends neither the process nor the engine."""
        if kind not in model.capabilities.constraints:
            with pytest.raises(UnsupportedFeature):
                model.generate(self._malformed(kind))
            return
        self._needs_enforcement(model)
        with pytest.raises(OsportError) as caught:
            model.generate(self._malformed(kind))
        assert not isinstance(caught.value, ContractViolation | BadResponse)
        assert isinstance(self._ask(model).text, str)

    def test_a_key_is_never_shown(self, model: Model) -> None:
        """No key that an option gives stands in a repr, in ``effective`` or in the facts."""
        keys = [option() for name, option in self.options.items() if "key" in name and callable(option)]
        answer = self._ask(model)
        shown = f"{model!r} {model.backend!r} {vars(model.backend)!r} {answer!r} {model.facts!r}"
        assert not [name for name, key in enumerate(keys) if key and key in shown]

    def _malformed(self, kind: str) -> Request:
        return self.asking(Request([Message.user(self.prompt)], constraint=MALFORMED[kind]))

    def _too_long(self, model: Model) -> str:
        if self.overflow is not None:
            return self.overflow
        context = model.facts.get("context_length")
        if context is not None:
            pytest.fail(f"the facts name a context of {context} tokens: set overflow to a prompt that is longer")
        pytest.skip("the backend knows of no context that a prompt could be too long for")
