"""The contract of a backend, area by area, as one test class that a third party inherits."""

from __future__ import annotations

from typing import ClassVar

from osport.testing.conformance.area import Area, checks_of, refuse_unexplained
from osport.testing.conformance.asynchronous import AsyncChecks
from osport.testing.conformance.batch import BatchChecks
from osport.testing.conformance.cancel import CancelChecks
from osport.testing.conformance.chat import ChatChecks
from osport.testing.conformance.constraints import ConstraintChecks
from osport.testing.conformance.determinism import DeterminismChecks
from osport.testing.conformance.errors import ErrorChecks
from osport.testing.conformance.lifecycle import LifecycleChecks
from osport.testing.conformance.logprobs import LogprobChecks
from osport.testing.conformance.sampling import SamplingChecks
from osport.testing.conformance.stream import StreamChecks
from osport.testing.conformance.thinking import ThinkingChecks
from osport.testing.conformance.tools import ToolChecks
from osport.testing.conformance.usage import UsageChecks

__all__ = ["BackendConformance"]


class BackendConformance(
    ChatChecks,
    StreamChecks,
    AsyncChecks,
    BatchChecks,
    CancelChecks,
    ErrorChecks,
    ConstraintChecks,
    ToolChecks,
    ThinkingChecks,
    LogprobChecks,
    SamplingChecks,
    DeterminismChecks,
    UsageChecks,
    LifecycleChecks,
):
    """Inherit, set ``reference`` (and ``options``), and pytest runs the contract.

    What the backend's ``capabilities`` promise must work; what they do not promise must be refused. A check
    is skipped only where a capability is not declared, or where ``exceptions`` names it with a reason.

    ``prompt``: a question that the model answers with a sentence or more. ``overflow``: a prompt that cannot
    fit the context, where there is one. ``patience``: seconds after which a call that should have ended
    counts as hanging. ``exceptions``: by the name of a check, why it does not hold for this backend; the
    reason is shown as that of the skip. A check that a subclass overrides needs such a reason, too, and then
    the subclass's own version runs. A check overridden without one, or a reason for a check that does not
    exist, is a :class:`~osport.errors.UsageError` when the class is made.
    """

    areas: ClassVar[tuple[type[Area], ...]] = (
        ChatChecks, StreamChecks, AsyncChecks, BatchChecks, CancelChecks, ErrorChecks, ConstraintChecks, ToolChecks,
        ThinkingChecks, LogprobChecks, SamplingChecks, DeterminismChecks, UsageChecks, LifecycleChecks,
    )  # fmt: skip

    def __init_subclass__(cls, **keywords: object) -> None:
        super().__init_subclass__(**keywords)
        refuse_unexplained(cls, checks_of(BackendConformance))
