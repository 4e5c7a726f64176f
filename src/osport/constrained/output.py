"""``ConstrainedOutput``: the form of an answer, as a stage between caller and engine."""

from __future__ import annotations

import copy
import hashlib
import json
import re
from collections.abc import Iterable
from functools import cached_property
from typing import Any

from attrs import evolve, frozen
from jsonschema.protocols import Validator

from osport.constrained.dialects import to_llguidance
from osport.constrained.schema import Schema, check_schema
from osport.constrained.support import refuse_unless_gbnf_enforces
from osport.constrained.verify import in_choice, in_grammar, in_pattern, in_schema
from osport.core.capabilities import Capabilities
from osport.core.stage import Stage
from osport.core.types import Completion, Constraint, Request
from osport.errors import ConstraintViolated, Refused, Truncated, UnsupportedFeature, UsageError

__all__ = ["ConstrainedOutput"]


@frozen(slots=False, eq=False)
class ConstrainedOutput(Stage):
    """The form that an answer must have: what is returned has it, or an error is raised.

    Made by :meth:`json_schema`, :meth:`choice`, :meth:`regex` or :meth:`grammar`. Before the call it
    is checked that the engine enforces every part of the form; afterwards the answer is verified,
    whoever enforced it. A valid answer can still be a wrong one.

    >>> sentiment = ConstrainedOutput.choice(["pos", "neg"])
    >>> sentiment.verify("pos")
    'pos'
    """

    constraint: Constraint

    @classmethod
    def json_schema(cls, schema: Schema) -> ConstrainedOutput:
        """A JSON value that the schema allows, written without white space, properties in the schema's order.

        ``schema``: a JSON Schema of drafts 3 to 2020-12 (2020-12 where ``$schema`` is left out).

        Raises :class:`~osport.errors.UsageError` with the path of what is wrong in the schema, an
        unknown keyword included; :class:`~osport.errors.UnsupportedFeature` for an unknown format.
        """
        check_schema(schema)
        return cls(Constraint("json_schema", copy.deepcopy(schema)))

    @classmethod
    def choice(cls, labels: Iterable[str]) -> ConstrainedOutput:
        """One of the labels, to the letter.

        Raises :class:`~osport.errors.UsageError` for no labels, an empty label, or one given twice.
        """
        if isinstance(labels, str):
            raise UsageError(f"labels={labels!r}: a list of strings, not one string")
        given = tuple(labels)
        if not given or not all(isinstance(label, str) and label for label in given):
            raise UsageError(f"labels={given!r}: at least one, and none of them empty")
        if len(set(given)) < len(given):
            raise UsageError(f"labels={given!r}: one of them stands there twice")
        return cls(Constraint("choice", given))

    @classmethod
    def regex(cls, pattern: str) -> ConstrainedOutput:
        """A text that the whole pattern matches, as ``re.fullmatch`` understands it.

        Raises :class:`~osport.errors.UsageError` for a pattern that does not compile.
        """
        try:
            re.compile(pattern)
        except (re.error, TypeError, RecursionError, OverflowError) as error:
            raise UsageError(f"pattern={pattern!r}: no regular expression: {error}") from error
        return cls(Constraint("regex", pattern))

    @classmethod
    def grammar(cls, gbnf: str) -> ConstrainedOutput:
        """A text that a GBNF grammar (the notation of llama.cpp, with the rule ``root``) derives.

        Needs llguidance, which checks the grammar here and the answer later.
        Raises :class:`~osport.errors.UsageError` for a grammar with a fault, such as an undefined rule.
        """
        output = cls(Constraint("grammar", gbnf))
        output._lark  # noqa: B018 - an unparsable grammar kills some engines, so it goes no further
        return output

    @cached_property
    def hash(self) -> str:
        """SHA-256 of the constraint in one canonical form; the order of properties counts."""
        form = json.dumps([self.constraint.kind, self.constraint.value], ensure_ascii=True, separators=(",", ":"))
        return hashlib.sha256(form.encode()).hexdigest()

    def prepare(self, request: Request, capabilities: Capabilities) -> Request:
        """The request with this constraint, once it is sure that the engine enforces all of it.

        Raises :class:`~osport.errors.UnsupportedFeature` for a kind of constraint, or a keyword with
        its path, that the engine would not enforce; :class:`~osport.errors.UsageError` for what
        cannot go together with a constraint: another one, stop strings, an assistant prefill.
        """
        kind = self.constraint.kind
        if request.constraint is not None and request.constraint != self.constraint:
            raise UsageError("the request has a constraint already")
        if request.sampling.stop:
            raise UsageError(f"stop={request.sampling.stop!r} could end a constrained answer half-way; leave it out")
        if request.messages and request.messages[-1].role == "assistant":
            raise UsageError("an assistant prefill and a constraint both say how the answer begins; leave one out")
        engine = capabilities.constraint_engine
        if kind not in capabilities.constraints:
            raise UnsupportedFeature(f"constrained output of kind {kind}", engine or "this backend")
        if engine == "llguidance":
            self._lark  # noqa: B018 - compiles, or refuses by name
        elif engine == "llama.cpp-gbnf" and kind == "json_schema":
            refuse_unless_gbnf_enforces(self.constraint.value)
        return evolve(request, constraint=self.constraint)

    def finish(self, completion: Completion) -> Completion:
        """The completion with its verified value in ``parsed``.

        Raises :class:`~osport.errors.Truncated` for an answer that was cut off,
        :class:`~osport.errors.Refused` for a refusal and
        :class:`~osport.errors.ConstraintViolated` for any other that does not conform.
        """
        if completion.finish_reason == "length":
            raise Truncated("the answer was cut off before its form was complete; raise max_tokens", completion)
        if completion.finish_reason == "refusal":
            raise Refused("the model refused to answer", completion)
        try:
            value = self.verify(completion.text)
        except ConstraintViolated as error:
            raise ConstraintViolated(str(error), completion, path=error.path, keyword=error.keyword) from error
        return evolve(completion, parsed=value, enforcement=evolve(completion.enforcement, verified=True))

    def verify(self, text: str) -> Any:
        """The value of a text from anywhere: parsed JSON for a schema, else the text itself.

        Raises :class:`~osport.errors.ConstraintViolated` with ``path`` and ``keyword``.
        """
        kind = self.constraint.kind
        if kind == "json_schema":
            return in_schema(text, self._validator)
        if kind == "choice":
            return in_choice(text, self.constraint.value)
        if kind == "regex":
            return in_pattern(text, re.compile(self.constraint.value))
        return in_grammar(text, self._lark)

    @cached_property
    def _validator(self) -> Validator:
        return check_schema(self.constraint.value)

    @cached_property
    def _lark(self) -> str:
        return to_llguidance(self.constraint)
