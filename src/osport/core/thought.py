"""The reasoning that a model writes before an answer whose form is fixed."""

from __future__ import annotations

from attrs import frozen

from osport.errors import UsageError

__all__ = ["Thought"]


@frozen
class Thought:
    """Free text from ``opening`` to the first ``closing``, behind which the form of the answer begins.

    ``opening``: the mark that the model writes first; None where the prompt ends with it already. ``closing``: empty
    where nobody knows the mark, and then no mask can tell where the form begins. ``budget``: the most tokens between
    the marks; None: ``max_tokens`` of the whole answer is the only bound. Up to two line breaks may stand between
    ``closing`` and the form; they belong to neither.
    """

    closing: str
    opening: str | None = None
    budget: int | None = None

    def __attrs_post_init__(self) -> None:
        if self.budget is not None and self.budget < 1:
            raise UsageError(f"budget={self.budget!r}: a number of tokens, at least 1")
