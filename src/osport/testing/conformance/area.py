"""What the areas of the kit share: the model under test, how it is asked, and when a check is skipped."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, TypeVar

import pytest

from osport.core.capabilities import negotiate
from osport.core.prompt import CallOptions, Prompt, to_request
from osport.core.types import Completion, Request
from osport.errors import UsageError
from osport.model import Model

__all__ = ["Area", "checks_of", "refuse_unexplained"]

T = TypeVar("T")

FEW_TOKENS = 16
MANY_TOKENS = 400


class Area:
    """Base of every area; see :class:`~osport.testing.BackendConformance` for the attributes to set."""

    reference: ClassVar[str]
    options: ClassVar[Mapping[str, Any]] = {}
    prompt: ClassVar[str] = "Tell me about the sea."
    overflow: ClassVar[str | None] = None
    patience: ClassVar[float] = 120.0
    exceptions: ClassVar[Mapping[str, str]] = {}

    @classmethod
    def make_model(cls) -> Model:
        """A fresh model; override it where a reference and options do not suffice."""
        return Model(cls.reference, **cls.options)

    @classmethod
    def asking(cls, request: Request) -> Request:
        """Every request of the kit passes here; override it to add what the backend needs, such as an ``item_id``."""
        return request

    @pytest.fixture(scope="class")
    @classmethod
    def model(cls) -> Iterator[Model]:
        """One model for the whole class."""
        with cls.make_model() as model:
            yield model

    @pytest.fixture(autouse=True)
    def _stated_exception(self, request: pytest.FixtureRequest) -> None:
        check = getattr(request.node, "originalname", None) or request.node.name
        reason = self.exceptions.get(check)
        if reason is not None and _is_the_kits(type(self), check):
            pytest.skip(f"a stated exception: {reason}")

    def _request(self, model: Model, prompt: Prompt | None = None, **options: Any) -> Request:
        asked = self.prompt if prompt is None else prompt
        if isinstance(asked, str) and not model.capabilities.chat:
            asked = Request(prompt=asked)
        return self.asking(to_request(asked, CallOptions(**options)))  # type: ignore[typeddict-item]

    def _as_the_backend_gets_it(self, model: Model, request: Request) -> Request:
        """For a check that looks behind ``Model``."""
        return negotiate(request, model.capabilities, backend=model.ref.backend)

    def _ask(self, model: Model, prompt: Prompt | None = None, **options: Any) -> Completion:
        """A short answer, whatever of that the backend can be told."""
        output = options.pop("output", None)
        return model.generate(self._request(model, prompt, **{**self._short(model), **options}), output=output)

    def _short(self, model: Model) -> dict[str, Any]:
        return {"max_tokens": FEW_TOKENS} if self._takes(model, "max_tokens") else {}

    def _long(self, model: Model) -> dict[str, Any]:
        return {"max_tokens": MANY_TOKENS} if self._takes(model, "max_tokens") else {}

    def _takes(self, model: Model, parameter: str) -> bool:
        return parameter in model.capabilities.sampling

    def _needs(self, model: Model, *names: str) -> None:
        """Skip unless the capabilities declare all of these features and sampling parameters."""
        for name in names:
            if not (getattr(model.capabilities, name, False) or self._takes(model, name)):
                pytest.skip(f"the backend declares no {name}")

    def _needs_enforcement(self, model: Model) -> None:
        """Skip unless the backend, or the server behind it, is what makes an answer conform."""
        if model.capabilities.enforced_by not in ("sampling", "server"):
            pytest.skip(f"the backend declares its forms enforced by {model.capabilities.enforced_by!r}")

    def _within(self, seconds: float, call: Callable[[], T], what: str) -> T:
        """The result of a call that must not hang; it is left behind on its thread when it does."""
        results: list[T] = []
        errors: list[BaseException] = []

        def run() -> None:
            try:
                results.append(call())
            except BaseException as error:  # noqa: BLE001 - raised again below, in the test's own thread
                errors.append(error)

        thread = threading.Thread(target=run, name="osport-conformance", daemon=True)
        thread.start()
        thread.join(seconds)
        if thread.is_alive():
            pytest.fail(f"{what} has not ended within {seconds:g} s")
        if errors:
            raise errors[0]
        return results[0]


def _is_the_kits(cls: type, check: str) -> bool:
    owner = next((base for base in cls.__mro__ if check in vars(base)), cls)
    return _belongs_to_the_kit(owner)


def _belongs_to_the_kit(cls: type) -> bool:
    return cls.__module__.startswith("osport.testing.conformance")


def checks_of(cls: type) -> frozenset[str]:
    """The names of the checks of a conformance class."""
    return frozenset(name for name in dir(cls) if name.startswith("test_"))


def refuse_unexplained(cls: type[Area], checks: frozenset[str]) -> None:
    """Raise UsageError for a check that a subclass overrides without a reason, and for a reason without a check."""
    stated = cls.exceptions
    for check, reason in stated.items():
        if check not in checks:
            raise UsageError(f"{cls.__name__}.exceptions names {check!r}, and the kit has no such check")
        if not isinstance(reason, str) or not reason.strip():
            raise UsageError(f"{cls.__name__}.exceptions[{check!r}] gives no reason")
    for base in cls.__mro__:
        if _belongs_to_the_kit(base):
            continue
        for check in sorted(checks & vars(base).keys() - stated.keys()):
            raise UsageError(
                f"{cls.__name__} overrides {check}, which is part of every backend's contract, and does not say why; "
                f"state it: exceptions = {{{check!r}: 'the reason'}}"
            )
