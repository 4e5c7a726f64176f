"""Bounds on what a template may cost: a template is a program from a stranger.

Three walls. :func:`guard` puts a budget on everything that makes text or numbers grow. :func:`deadline`
stops a render that runs on. What neither can stop (one call into C that never ends, containers that
nest themselves) is recognised from the template's form by :func:`unbounded`, and such a template is
rendered in a child process under limits of the operating system.
"""

from __future__ import annotations

import ctypes
import functools
import operator
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

from osport.errors import TemplateError

__all__ = ["SECONDS", "check_size", "deadline", "guard"]

SECONDS = 5.0
SOURCE_CHARACTERS = 256 * 1024  # published templates stay under 20 KB
TEXT_CHARACTERS = 128 * 2**20  # all text that one render makes, intermediate strings included
POINTER_BYTES = 8
PIECE_BYTES = 32  # what a small string costs besides its characters
POWER_BITS = 4096


class OverBudget(Exception):
    """A template made more text, or a larger number, than any prompt needs."""


class OutOfTime(Exception):
    """A template ran longer than :data:`SECONDS`."""


_budget = threading.local()


def check_size(source: str) -> None:
    """Raise :class:`~osport.errors.TemplateError` for a source far larger than any chat template."""
    if len(source) > SOURCE_CHARACTERS:
        raise TemplateError(
            f"the chat template has {len(source)} characters; {SOURCE_CHARACTERS} is the limit, "
            "and published templates stay under a tenth of it"
        )


def _spend(characters: int) -> None:
    left = getattr(_budget, "left", TEXT_CHARACTERS) - characters
    _budget.left = left
    if left < 0:
        raise OverBudget(f"it makes more than {TEXT_CHARACTERS // 2**20} million characters of text")


def guard(environment: Any, *, sums: bool) -> None:
    """Put the budget into a sandbox: operators, joining and replacing, and every piece of output.

    ``sums``: whether + is counted too. It costs time, and a sum that is printed at once is counted as output.
    """
    environment.intercepted_binops = frozenset({"+", "*", "**", "%"} if sums else {"*", "**", "%"})
    environment.call_binop = _operate
    environment.concat = _concat
    for name, filter_ in (("join", _join), ("replace", _replace), ("list", _list)):
        environment.filters[name] = functools.wraps(environment.filters[name])(
            functools.partial(filter_, environment.filters[name])
        )


def count_concatenation(template: Any) -> None:
    """Put the budget into ``~`` of one compiled template."""
    names = template.root_render_func.__globals__
    for name in ("str_join", "markup_join"):
        if name in names:
            names[name] = _counted(names[name])


def _counted(function: Callable[[Iterable[Any]], str]) -> Callable[[Iterable[Any]], str]:
    def joined(parts: Iterable[Any]) -> str:
        text = function(parts)
        _spend(len(text))
        return text

    return joined


def _operate(context: object, sign: str, left: Any, right: Any) -> Any:
    if sign == "+":
        result = left + right
        if result.__class__ is str:
            _spend(len(result))
        elif result.__class__ is list:
            _spend(POINTER_BYTES * len(result))
        return result
    if sign == "*":
        for many, text in ((left, right), (right, left)):
            if isinstance(many, int) and isinstance(text, str | list | tuple):
                _spend(POINTER_BYTES * max(0, many) * len(text))
        return _small(operator.mul, left, right)
    if sign == "**":
        return _small(operator.pow, left, right)
    if isinstance(left, str):  # "%999999999d" % 1 is a memory bomb in eleven characters
        raise OverBudget("formatting with % is not available to chat templates")
    return left % right


def _small(operation: Callable[[Any, Any], Any], left: Any, right: Any) -> Any:
    if isinstance(left, int) and isinstance(right, int):
        bits = left.bit_length() * right if operation is operator.pow else left.bit_length() + right.bit_length()
        if bits > POWER_BITS:
            raise OverBudget("it computes a number of more than 4096 bits")
    return operation(left, right)


def _concat(pieces: Iterable[str]) -> str:
    kept: list[str] = []
    made, left = 0, getattr(_budget, "left", TEXT_CHARACTERS)
    for piece in pieces:
        made += len(piece) + PIECE_BYTES
        if made > left:
            break
        kept.append(piece)
    _spend(made)
    return "".join(kept)


def _join(original: Callable[..., str], eval_context: Any, value: Any, d: str = "", attribute: Any = None) -> str:
    items = list(value)
    if attribute is None:
        _spend(sum(len(item) for item in items if isinstance(item, str)) + len(str(d)) * len(items))
    else:  # the texts are not known before they are looked up
        items = [eval_context.environment.getitem(item, attribute) for item in items]
        return _join(original, eval_context, items, d)
    return original(eval_context, items, d)


def _replace(
    original: Callable[..., str], eval_context: Any, s: str, old: str, new: str, count: int | None = None
) -> str:
    if isinstance(s, str) and isinstance(old, str) and isinstance(new, str):
        _spend(len(s) + s.count(old) * len(new))
    return original(eval_context, s, old, new, count)


def _list(original: Callable[..., list[Any]], *given: Any) -> list[Any]:
    if isinstance(given[-1], str):
        _spend(POINTER_BYTES * len(given[-1]))
    return original(*given)


class _Watch:
    """One thread that looks after all renders of this process and stops those that are late."""

    POLL_SECONDS = 0.1
    IDLE_SECONDS = 30.0

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: dict[int, float] = {}
        self._thread: threading.Thread | None = None

    def start(self, ident: int) -> None:
        with self._lock:
            self._running[ident] = time.monotonic() + SECONDS
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._look_after, name="osport-template-watch", daemon=True)
                self._thread.start()

    def stop(self, ident: int) -> None:
        with self._lock:
            if self._running.pop(ident, 0.0) < 0:  # stopped by us: the exception may still be on its way
                ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(ident), None)

    def _look_after(self) -> None:
        idle_since = time.monotonic()
        while True:
            time.sleep(self.POLL_SECONDS)
            now = time.monotonic()
            with self._lock:
                for ident, until in self._running.items():
                    if 0 <= until < now:
                        self._running[ident] = -1.0
                        raised = ctypes.py_object(OutOfTime)
                        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(ident), raised)
                if self._running:
                    idle_since = now
                elif now - idle_since > self.IDLE_SECONDS:
                    self._thread = None
                    return


_watch = _Watch()


class deadline:  # noqa: N801 - used as a context manager, like those of contextlib
    """Give what runs inside a fresh budget and :data:`SECONDS` of time; calls inside one share both."""

    __slots__ = ("_ident",)

    def __enter__(self) -> None:
        self._ident = 0
        if not getattr(_budget, "active", False):
            self._ident = threading.get_ident()
            _budget.left, _budget.active = TEXT_CHARACTERS, True
            _watch.start(self._ident)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if not self._ident:
            return
        _watch.stop(self._ident)
        _budget.active = False
        if isinstance(error, OutOfTime):
            raise OutOfTime(f"it ran longer than {SECONDS:g} s") from None
