"""Every error that osport raises on purpose.

::

    OsportError
    ├─ UsageError(ValueError)                  the call or a file the caller wrote is wrong
    ├─ StorageError(OSError)                   a file could not be read, written or downloaded
    ├─ PluginError
    │  ├─ BackendNotFound(LookupError)
    │  ├─ PluginLoadError
    │  ├─ PluginConflict
    │  └─ ContractViolation
    ├─ MissingDependency(ImportError)          .extra
    ├─ UnsupportedFeature                      .feature .backend .alternatives
    ├─ FormatError                             a header or a config that is not what it claims
    ├─ TemplateError
    ├─ PolicyError
    │  ├─ LicenseDenied                        .verdict
    │  └─ BudgetExceeded                       .needed .available
    ├─ BackendError                            .backend .model .status .request_id .retry_after .retryable
    │  ├─ AuthFailed · ModelNotFound · ContextOverflow · BadRequest        not retryable
    │  └─ RateLimited · Unreachable · TimedOut · ServerFault · BadResponse    retryable
    └─ OutputError                             .completion
       └─ ConstraintViolated(.enforcement) · Truncated · Refused

A message says what was wrong, where, and what to do about it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from osport.core.types import Completion, Enforcement

__all__ = [
    "AuthFailed",
    "BackendError",
    "BackendNotFound",
    "BadRequest",
    "BadResponse",
    "BudgetExceeded",
    "ConstraintViolated",
    "ContextOverflow",
    "ContractViolation",
    "FormatError",
    "LicenseDenied",
    "MissingDependency",
    "ModelNotFound",
    "OsportError",
    "OutputError",
    "PluginConflict",
    "PluginError",
    "PluginLoadError",
    "PolicyError",
    "RateLimited",
    "Refused",
    "ServerFault",
    "StorageError",
    "TemplateError",
    "TimedOut",
    "Truncated",
    "Unreachable",
    "UnsupportedFeature",
    "UsageError",
]


class OsportError(Exception):
    """Root of the tree: ``except OsportError`` catches all that osport raises on purpose.

    Every error of the tree can be pickled, so that it crosses from a worker process unharmed.
    """

    def __reduce__(self) -> tuple[Callable[..., OsportError], tuple[Any, ...], dict[str, Any]]:
        # Not by calling the class again: some of them take other arguments than their message.
        return _made_anew, (type(self), self.args), self.__dict__


def _made_anew(kind: type[OsportError], args: tuple[Any, ...]) -> OsportError:
    return kind.__new__(kind, *args)


class UsageError(OsportError, ValueError):
    """A call, or a file that the caller wrote, is wrong."""


class StorageError(OsportError, OSError):
    """A file could not be read, written or downloaded (disk full, no permission, no network)."""


class PluginError(OsportError):
    """A plugin is missing, broken, or at odds with another."""


class BackendNotFound(PluginError, LookupError):
    """No installed package offers a backend of this name."""


class PluginLoadError(PluginError):
    """A plugin raised while it was imported or registered."""


class PluginConflict(PluginError):
    """Two packages offer a backend under the same name."""


class ContractViolation(PluginError):
    """A backend broke the contract of ``osport.plugin.Backend``."""


class MissingDependency(OsportError, ImportError):
    """An optional package is not installed; the message prints the command that installs it."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"{package} is not installed; run: pip install 'osport[{extra}]'")
        self.package = package
        self.extra = extra


class UnsupportedFeature(OsportError):
    """The backend or engine cannot do what was asked, and osport does not pretend that it can."""

    def __init__(
        self,
        feature: str,
        backend: str,
        *,
        reason: str = "",
        alternatives: Sequence[str] = (),
    ) -> None:
        super().__init__(feature, backend)
        self.feature = feature
        self.backend = backend
        self.reason = reason
        self.alternatives = tuple(alternatives)

    def __str__(self) -> str:
        text = f"{self.backend} does not support {self.feature}"
        if self.reason:
            text += f": {self.reason}"
        if self.alternatives:
            text += f"; backends that do: {', '.join(self.alternatives)}"
        return text


class FormatError(OsportError):
    """A file is not what it claims to be (a bad magic, a header that lies, a wrong checksum)."""


class TemplateError(OsportError):
    """A chat template is missing, does not compile, or refuses the conversation."""


class PolicyError(OsportError):
    """A policy stopped the model before anything was loaded."""


class LicenseDenied(PolicyError):
    """The licence does not allow the intended use."""

    def __init__(self, message: str, verdict: object = None) -> None:
        super().__init__(message)
        self.verdict = verdict


class BudgetExceeded(PolicyError):
    """The model needs more memory (bytes) than the devices have."""

    def __init__(self, message: str, *, needed: int, available: int) -> None:
        super().__init__(message)
        self.needed = needed
        self.available = available


class BackendError(OsportError):
    """The engine or the server failed. ``retryable`` says whether the same call may succeed later."""

    retryable: ClassVar[bool] = False

    def __init__(
        self,
        message: str,
        *,
        backend: str = "",
        model: str = "",
        status: int | None = None,
        request_id: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.backend = backend
        self.model = model
        self.status = status
        self.request_id = request_id
        self.retry_after = retry_after


class AuthFailed(BackendError):
    """The server refused the credentials (HTTP 401 or 403)."""


class ModelNotFound(BackendError):
    """The model name is unknown, or its file does not exist."""


class ContextOverflow(BackendError):
    """The prompt does not fit the context; osport never trims it silently."""


class BadRequest(BackendError):
    """The engine refused the request as malformed (HTTP 400 or 422, a grammar that does not parse)."""


class RateLimited(BackendError):
    """Too many requests (HTTP 429); ``retry_after`` in seconds when the server said so."""

    retryable = True


class Unreachable(BackendError):
    """No connection to the server could be made."""

    retryable = True


class TimedOut(BackendError):
    """No answer within the time limit."""

    retryable = True


class ServerFault(BackendError):
    """The server failed or died while it worked on the request (HTTP 5xx, a closed connection)."""

    retryable = True


class BadResponse(BackendError):
    """The server answered with something that is not an answer."""

    retryable = True


class OutputError(OsportError):
    """The model answered, but the answer cannot be handed on as what was asked for."""

    def __init__(self, message: str, completion: Completion | None = None) -> None:
        super().__init__(message)
        self.completion = completion


class ConstraintViolated(OutputError):
    """The answer does not have the form that was asked for."""

    def __init__(
        self,
        message: str,
        completion: Completion | None = None,
        *,
        path: str = "$",
        keyword: str = "",
    ) -> None:
        super().__init__(message, completion)
        self.path = path
        self.keyword = keyword

    @property
    def enforcement(self) -> Enforcement | None:
        """How the form was meant to be enforced, None when no completion is attached."""
        return self.completion.enforcement if self.completion else None


class Truncated(OutputError):
    """The answer stopped at ``max_tokens`` or at the context's end inside a constrained form."""


class Refused(OutputError):
    """The model or the provider refused to answer."""
