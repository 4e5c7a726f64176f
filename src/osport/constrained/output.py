"""``ConstrainedOutput``: the form of an answer, as a stage between caller and engine."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any, Literal, get_args

from attrs import evolve, field, frozen
from jsonschema.protocols import Validator

from osport.constrained.budget import refuse_too_few, shortest, unbounded
from osport.constrained.choose import checked_engine, engine_of, first_that_takes, named, only_behind_thought
from osport.constrained.dialects import with_header
from osport.constrained.enforceable import Enforceable, OnUnsupported
from osport.constrained.engines import DEFAULT_ENGINE, engine_named
from osport.constrained.hatch import Hatch, with_hatch
from osport.constrained.matcher import OutputMatcher
from osport.constrained.resample import another_try
from osport.constrained.schema import CheckedSchema, Schema, checked, json_path
from osport.constrained.support import Support, support_of
from osport.constrained.targets import Target, is_target, target_of
from osport.constrained.tools import Mode, calls_in, tools_constraint, verified_calls
from osport.constrained.verify import in_choice, in_grammar, in_pattern, in_schema
from osport.constrained.vocabulary import BYTES, Vocabulary
from osport.core.call_form import CallForm
from osport.core.capabilities import Capabilities
from osport.core.stage import Stage
from osport.core.types import Completion, Constraint, FinishReason, Request, Tool, ToolCall
from osport.errors import ConstraintViolated, OutputError, Refused, Truncated, UnsupportedFeature, UsageError

__all__ = ["ConstrainedOutput"]

CUT_OFF_THINKING = "the answer was cut off inside its reasoning; raise max_tokens, or bound it by thinking=<tokens>"
NO_VALUE = "no finite JSON value conforms to the schema: what it demands contradicts itself, or leads back to itself"


@frozen(slots=False, eq=False)
class ConstrainedOutput(Stage):
    """The form that an answer must have: what is returned has it, or an error is raised.

    Made by :meth:`json_schema`, :meth:`choice`, :meth:`regex`, :meth:`grammar` or :meth:`tools`. Before the call it
    is checked that the engine enforces every part of the form; afterwards the answer is verified,
    whoever enforced it. A valid answer can still be a wrong one.

    ``on_unsupported``: ``refuse`` a keyword that the engine would not enforce, or ``check`` it: the engine
    enforces the rest, the answer is verified in full, and ``Enforcement.checked`` names what only that ensured.

    >>> sentiment = ConstrainedOutput.choice(["pos", "neg"])
    >>> sentiment.verify("pos")
    'pos'
    """

    constraint: Constraint
    on_unsupported: OnUnsupported = "refuse"
    target: Target | None = field(default=None, repr=False)
    hatches: tuple[Hatch, ...] = field(default=(), repr=False)
    _found: CheckedSchema | None = field(default=None, repr=False)

    def __attrs_post_init__(self) -> None:
        if self.on_unsupported not in get_args(OnUnsupported):
            raise UsageError(f"on_unsupported={self.on_unsupported!r}: refuse or check")

    @classmethod
    def json_schema(
        cls, schema: Schema | type, *, on_unsupported: OnUnsupported = "refuse", engine: str | None = None
    ) -> ConstrainedOutput:
        """A JSON value that the schema allows, written without white space, properties in the schema's order.

        ``schema``: a JSON Schema of drafts 4 to 2020-12 (the newest that fits where ``$schema`` is left out),
        or a class: attrs, dataclass, TypedDict or pydantic model, or ``list[Item]`` and the like; then ``parsed`` is
        an instance of it.
        ``engine``: who must enforce it: ``llguidance``, ``xgrammar``, ``outlines`` or ``native`` (the backend's own);
        None: the backend's own choice, or where that refuses the schema, another engine of the backend that takes it.

        Raises :class:`~osport.errors.UsageError` with the path of what is wrong in the schema, a misspelt
        keyword included, or that no finite value conforms to; :class:`~osport.errors.UnsupportedFeature` for an
        unknown format, which ``check`` leaves out and names in :attr:`notes`.
        """
        target = target_of(schema) if is_target(schema) else None
        given: Any = target.schema if target is not None else schema
        found = checked(given, unknown_formats="drop" if on_unsupported == "check" else "refuse")
        if found.recursive and shortest(found.schema) == math.inf:
            raise UsageError(NO_VALUE)
        constraint = Constraint.json_schema(found.schema, found.text, checked_engine(engine))
        return cls(constraint, on_unsupported, target, found=found)

    @classmethod
    def choice(cls, labels: Iterable[str], *, engine: str | None = None) -> ConstrainedOutput:
        """One of the labels, to the letter. ``engine``: see :meth:`json_schema`.

        Raises :class:`~osport.errors.UsageError` for no labels, an empty label, or one given twice.
        """
        if isinstance(labels, str):
            raise UsageError(f"labels={labels!r}: a list of strings, not one string")
        given = tuple(labels)
        if not given or not all(isinstance(label, str) and label for label in given):
            raise UsageError(f"labels={given!r}: at least one, and none of them empty")
        if len(set(given)) < len(given):
            raise UsageError(f"labels={given!r}: one of them stands there twice")
        return cls(Constraint("choice", given, checked_engine(engine)))

    @classmethod
    def regex(cls, pattern: str, *, engine: str | None = None) -> ConstrainedOutput:
        """A text that the whole pattern matches, as ``re.fullmatch`` understands it.

        ``engine``: see :meth:`json_schema`.
        Raises :class:`~osport.errors.UsageError` for a pattern that does not compile.
        """
        try:
            re.compile(pattern)
        except (re.error, TypeError, RecursionError, OverflowError) as error:
            raise UsageError(f"pattern={pattern!r}: no regular expression: {error}") from error
        return cls(Constraint("regex", pattern, checked_engine(engine)))

    @classmethod
    def grammar(cls, text: str, *, engine: str | None = None) -> ConstrainedOutput:
        """A text that a grammar derives.

        ``text``: GBNF, the EBNF of llama.cpp and xgrammar (``::=``, from the rule ``root``), or Lark as llguidance
        reads it (``:``, from the rule ``start``), which llguidance alone enforces.
        ``engine``: see :meth:`json_schema`; outlines knows no grammars.
        Needs llguidance, which checks the grammar here and the answer later.
        Raises :class:`~osport.errors.UsageError` for a grammar with a fault, such as an undefined rule.
        """
        chosen = checked_engine(engine)
        if isinstance(text, str) and "::=" not in text:
            if chosen not in (None, DEFAULT_ENGINE):
                raise UsageError(f"engine={engine!r}: a Lark grammar is llguidance's; write it in GBNF")
            text, chosen = with_header(text), DEFAULT_ENGINE
        output = cls(Constraint("grammar", text, chosen))
        output._enforceable.lark  # noqa: B018 - an unparsable grammar kills some engines, so it goes no further
        return output

    @classmethod
    def tools(
        cls,
        tools: Sequence[Tool],
        mode: Mode = "required",
        *,
        parallel: bool = False,
        form: CallForm | None = None,
        on_unsupported: OnUnsupported = "refuse",
    ) -> ConstrainedOutput:
        """Calls of these tools and of no others, with arguments that each tool's schema allows.

        ``mode``: at least one call (``required``), exactly one (``one``), or free text with or without calls behind
        it (``auto``). ``parallel``: up to 16 calls instead of one. ``form``: how the model writes a call; without it
        a JSON object ``{"name": ..., "arguments": {...}}``. The tools are not described to the model here.
        ``Completion.tool_calls`` and ``parsed`` are the calls, ``text`` what stands before them. Needs llguidance.
        ``on_unsupported``: as in :meth:`json_schema`, for the schemas of the tools.

        Raises :class:`~osport.errors.UsageError` for what is no list of tools, or no schema of an object.
        """
        return cls(tools_constraint(tools, mode, form or CallForm(), parallel=parallel), on_unsupported)

    def with_escape_hatch(self, *, on: str, value: Any = None, confidence: bool = False) -> ConstrainedOutput:
        """The form with one more value at the property ``on``, by which the model may say that it does not know.

        ``on``: ``outer.inner`` for a nested property, ``list[].inner`` for one in each element of a list. A form may
        have several hatches.
        ``value``: a member beside those of an enum, or None. ``confidence``: a required number from 0 to 1
        beside it, the model's own claim. :meth:`is_uncertain` tells whether an answer used the hatch.
        A model may be sure and wrong, and small models hardly ever use it.

        Raises :class:`~osport.errors.UsageError` for a form that is no JSON Schema, or without that property.
        """
        if self.constraint.kind != "json_schema" or self.target is not None:
            raise UsageError(
                "an escape hatch opens a JSON Schema; where a class is given, let its own field hold the value, too"
            )
        schema, hatch = with_hatch(self.constraint.value, on, value, confidence=confidence)
        engine = self.constraint.engine
        opened = ConstrainedOutput.json_schema(schema, on_unsupported=self.on_unsupported, engine=engine)
        return evolve(opened, hatches=(*self.hatches, hatch), found=self._found)

    def is_uncertain(self, answer: Any) -> bool:
        """Whether a parsed answer says through the escape hatch that the model does not know."""
        return any(hatch.taken(answer) for hatch in self.hatches)

    @property
    def notes(self) -> tuple[str, ...]:
        """What stands in the schema and constrains nothing: a keyword that JSON Schema does not know, and under
        ``check`` a format that nobody can verify."""
        return self._found.notes if self._found is not None else ()

    @property
    def unknown_formats(self) -> tuple[str, ...]:
        """The places of the formats and patterns that nobody can verify; the constraint goes without them."""
        return tuple(map(json_path, self._found.unknown_formats)) if self._found is not None else ()

    @cached_property
    def hash(self) -> str:
        """SHA-256 of the constraint in one canonical form; the order of properties counts."""
        form = json.dumps([self.constraint.kind, self.constraint.value], ensure_ascii=True, separators=(",", ":"))
        return hashlib.sha256(form.encode()).hexdigest()

    def support(self, engine: Any) -> list[Support]:
        """Each constraining keyword of the schema with its place and its fate: exact, checked, refused or unknown.

        ``unknown`` is a format or a pattern that neither the engine nor osport verifies, see :attr:`notes`.

        ``engine``: ``llguidance``, ``xgrammar``, ``outlines``, ``llama.cpp-gbnf``, or a backend or model.
        Raises :class:`~osport.errors.UsageError` for an engine that osport does not know.
        """
        if self.constraint.kind != "json_schema":
            return []
        rows = support_of(self.constraint.value, engine_of(engine), check=self.on_unsupported == "check")
        return rows + [
            Support(place.rpartition(".")[2], place, "unknown", "osport cannot verify it")
            for place in self.unknown_formats
        ]

    def prepare(self, request: Request, capabilities: Capabilities) -> Request:
        """The request with this constraint, once it is sure that the engine enforces all of it.

        Raises :class:`~osport.errors.UnsupportedFeature` for a kind of constraint, or a keyword with
        its path, that the engine would not enforce, and for thinking where the form would hold from the
        first token on; :class:`~osport.errors.UsageError` for what
        cannot go together with a constraint: another one, stop strings, an assistant prefill, and a
        ``max_tokens`` that the shortest answer does not fit into.
        """
        kind = self.constraint.kind
        if request.constraint is not None and request.constraint != self.constraint:
            raise UsageError("the request has a constraint already")
        if request.sampling.stop:
            raise UsageError(f"stop={request.sampling.stop!r} could end a constrained answer half-way; leave it out")
        if request.messages and request.messages[-1].role == "assistant":
            raise UsageError("an assistant prefill and a constraint both say how the answer begins; leave one out")
        own = capabilities.constraint_engine
        masked_here = own == DEFAULT_ENGINE and capabilities.enforced_by != "server"
        thinks = masked_here and (request.thought is not None or request.thinking not in (None, False))
        if thinks:
            capabilities = only_behind_thought(self.constraint.engine, capabilities)
        if kind not in capabilities.constraints:
            raise UnsupportedFeature(f"constrained output of kind {kind}", own or "this backend")
        self._fits(request.sampling.filled().max_tokens)
        asked, share_of = self.constraint.engine, self._enforceable.share_of
        engine = named(asked, capabilities) if asked else first_that_takes(capabilities, kind, share_of)
        chosen = engine if asked or thinks or engine != own else None
        return evolve(request, constraint=evolve(share_of(engine)[0], engine=chosen))

    def finish(self, completion: Completion, request: Request | None = None, sent: Request | None = None) -> Completion:
        """The completion with its verified value in ``parsed``.

        Raises :class:`~osport.errors.Truncated` for an answer that was cut off,
        :class:`~osport.errors.Refused` for a refusal and
        :class:`~osport.errors.ConstraintViolated` for any other that does not conform.
        """
        if completion.finish_reason == "length":
            if completion.reasoning is not None and not completion.text:
                raise Truncated(CUT_OFF_THINKING, completion)
            raise Truncated("the answer was cut off before its form was complete; raise max_tokens", completion)
        if completion.finish_reason == "refusal":
            raise Refused("the model refused to answer", completion)
        text, calls = completion.text, completion.tool_calls
        try:
            if self.constraint.kind == "tools":
                text, calls = self._called(completion)
                value: Any = calls
            else:
                value = self.verify(text)
        except ConstraintViolated as error:
            raise ConstraintViolated(str(error), completion, path=error.path, keyword=error.keyword) from error
        enforcement = evolve(
            completion.enforcement, verified=True, checked=self._enforceable.left_by(completion.enforcement.engine)
        )
        finish: FinishReason = "tool_calls" if calls else completion.finish_reason
        return evolve(
            completion,
            text=text,
            tool_calls=calls,
            finish_reason=finish,
            parsed=value,
            enforcement=enforcement,
            uncertain=self.is_uncertain(value),
        )

    def _called(self, completion: Completion) -> tuple[str, tuple[ToolCall, ...]]:
        """The free text and the verified calls of an answer, whoever took the calls out of its text."""
        if completion.tool_calls:
            return completion.text, verified_calls(completion.tool_calls, self.constraint.value)
        return calls_in(completion.text, self.constraint.value)

    def again(self, request: Request, error: OutputError, attempt: int) -> Request | None:
        """Under ``check``, another seed and a little more temperature for an answer that broke what only its
        verification ensures: at most three answers in all. A truncated answer is not asked for again."""
        if self.on_unsupported != "check" or error.completion is None:
            return None
        return another_try(request, error, attempt, self._enforceable.left_by(error.completion.enforcement.engine))

    @cached_property
    def warnings(self) -> tuple[str, ...]:
        """What could go on until ``max_tokens``: strings, arrays and numbers without bounds, with their places."""
        return unbounded(self.constraint.value) if self.constraint.kind == "json_schema" else ()

    def verify(self, text: str) -> Any:
        """The value of a text from anywhere: parsed JSON (or an instance of the class given), a tuple of tool calls,
        else the text itself.

        Raises :class:`~osport.errors.ConstraintViolated` with ``path`` and ``keyword``.
        """
        kind = self.constraint.kind
        if kind == "json_schema":
            value = in_schema(text, self._validator)
            return value if self.target is None else self.target.load(value)
        if kind == "tools":
            return calls_in(text, self.constraint.value)[1]
        if kind == "choice":
            return in_choice(text, self.constraint.value)
        if kind == "regex":
            return in_pattern(text, self.constraint.value)
        return in_grammar(text, self._enforceable.lark)

    def matcher(
        self, tokenizer: Vocabulary | Literal["bytes"] = "bytes", *, engine: str | None = None
    ) -> OutputMatcher:
        """The mask alone, replayable without a model: ``accepts``, ``advance``, ``allowed``.

        ``tokenizer``: a token for each byte, or the tokens of a model as an
        ``osport.constrained.vocabulary.Vocabulary``.
        ``engine``: ``llguidance``, ``xgrammar`` or ``outlines``; None: the form's own, or llguidance.
        Raises :class:`~osport.errors.UnsupportedFeature` with the keyword that the engine would not enforce.
        """
        vocabulary = BYTES if tokenizer == "bytes" else tokenizer
        if not isinstance(vocabulary, Vocabulary):
            raise UsageError(f"tokenizer={tokenizer!r}: 'bytes', or an osport.constrained.vocabulary.Vocabulary")
        engine = engine or self.constraint.engine or DEFAULT_ENGINE
        found = engine_named(engine)  # compiling is the gate, too; only a weaker form must be found before it
        constraint = self.constraint if self.on_unsupported == "refuse" else self._enforceable.share_of(engine)[0]
        compiled = found.compile(constraint, vocabulary)
        return OutputMatcher(compiled, vocabulary)

    def _fits(self, max_tokens: int | None) -> None:
        """Refuse, before anything is sampled, a form that no answer can have or that does not fit."""
        if self._least == math.inf:
            raise UsageError(NO_VALUE)
        refuse_too_few(max_tokens, self._least)

    @cached_property
    def _least(self) -> float:
        """Bytes of the shortest answer, as far as they are known."""
        kind, value = self.constraint.kind, self.constraint.value
        if kind == "choice":
            return min(len(label.encode()) for label in value)
        return shortest(value) if kind == "json_schema" else 1

    @cached_property
    def _validator(self) -> Validator:
        return checked(self.constraint.value, unknown_formats="drop").validator()

    @cached_property
    def _enforceable(self) -> Enforceable:
        return Enforceable(self.constraint, self.on_unsupported)
