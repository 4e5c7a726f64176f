"""Keys and passwords do not stand in messages."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

__all__ = ["shown_url", "without_key"]

HIDDEN = "[the key]"


def shown_url(text: str) -> str:
    """The URL, or a text that ends in one, without user, password, query and fragment."""
    start, scheme, rest = text.partition("://")
    if not scheme:
        return text
    *before, host = rest.rsplit("@", 1)
    return start + scheme + ("...@" if before else "") + re.split(r"[?#]", host, maxsplit=1)[0]


@contextlib.contextmanager
def without_key(key: str | None) -> Iterator[None]:
    """What is raised inside, and what caused it, does not show the key, wherever a server wrote it."""
    try:
        yield
    except Exception as error:
        if key:
            _hide(key, error)
        raise


def _hide(key: str, error: BaseException) -> None:
    seen: list[BaseException] = []
    shown: BaseException | None = error
    while shown is not None and not any(shown is one for one in seen):
        shown.args = tuple(arg.replace(key, HIDDEN) if isinstance(arg, str) else arg for arg in shown.args)
        if seen and key in str(shown):
            # It writes its message from something else.
            seen[-1].__cause__ = seen[-1].__context__ = None
            return
        seen.append(shown)
        shown = shown.__cause__ or shown.__context__
