"""A budget for what a template makes: a template is a program from a stranger.

:func:`guard` puts the budget on everything that makes text, numbers or containers grow in one step.
:class:`osport.chat_template.deadline.deadline` stops what runs on, or fills the memory in many steps. What neither
can stop (one call into C that never ends) is recognised from the template's form by
:func:`osport.chat_template.form.unbounded`, and rendered in a child process under limits of the operating system.
"""

from __future__ import annotations

import functools
import operator
import threading
from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any

from osport.chat_template.form import PAID, WEIGHED
from osport.errors import TemplateError

__all__ = ["OverBudget", "budget", "check_size", "count_concatenation", "guard", "settle"]

SOURCE_CHARACTERS = 256 * 1024  # published templates stay under 20 KB
TEXT_CHARACTERS = 32 * 2**20  # all text that one render makes, intermediate strings included
POINTER_BYTES = 8
PIECE_BYTES = 32  # what a small string costs besides its characters
PIECES = 512  # pieces of output that are counted together
POWER_BITS = 4096
CONTAINERS = frozenset({list, tuple, dict, type({}.items()), type({}.values()), type({}.keys())})


class OverBudget(Exception):
    """A template made more text, or a larger number, than any prompt needs."""


class _Budget(threading.local):
    """What the render that runs in this thread may still cost."""

    def __init__(self) -> None:
        self.left = TEXT_CHARACTERS
        self.weighed: dict[int, tuple[int, object]] = {}


_budget = _Budget()


def budget() -> None:
    """Begin a render: a full budget of text."""
    _budget.left = TEXT_CHARACTERS
    _budget.weighed = {}


def settle() -> None:
    """The render is over: let go of what was weighed."""
    _budget.weighed = {}


def check_size(source: str) -> None:
    """Raise :class:`~osport.errors.TemplateError` for a source far larger than any chat template."""
    if len(source) > SOURCE_CHARACTERS:
        raise TemplateError(
            f"the chat template has {len(source)} characters; {SOURCE_CHARACTERS} is the limit, "
            "and published templates stay under a tenth of it"
        )


def _spend(characters: int) -> None:
    _budget.left = left = _budget.left - characters
    if left < 0:
        raise OverBudget(f"it makes more than {TEXT_CHARACTERS // 2**20} million characters of text")


def guard(environment: Any, *, sums: bool) -> None:
    """Put the budget into a sandbox: operators, filters that make text, containers, every piece of output.

    ``sums``: whether + is counted too. It costs time, and a sum that is printed at once is counted as output.
    """
    environment.intercepted_binops = frozenset({"+", "*", "**", "%"} if sums else {"*", "**", "%"})
    environment.call_binop = _operate
    environment.concat = _concat
    filters = environment.filters
    for name, filter_ in (("join", _join), ("replace", _replace), ("list", _list), ("indent", _indent)):
        filters[name] = functools.wraps(filters[name])(functools.partial(filter_, filters[name]))
    for name in ("string", "escape", "e"):
        filters[name] = functools.wraps(filters[name])(functools.partial(_paid, filters[name]))
    filters["tojson"] = functools.partial(_tojson, filters["tojson"])
    filters["round"] = functools.partial(_round, filters["round"])
    filters[WEIGHED], filters[PAID] = _weighed, _paid_method
    environment.globals["dict"] = _Dictionaries(environment.globals["dict"])
    environment.globals["namespace"] = _namespaces(environment.globals["namespace"])


class _Dictionaries:
    """``dict`` as templates call it: the built-in one, or what newer versions of transformers put in its place."""

    def __init__(self, theirs: Any) -> None:
        self._theirs = theirs

    def __call__(self, *given: Any, **more: Any) -> Any:
        return _weighed(self._theirs(*given, **more))

    def fromkeys(self, *given: Any) -> Any:
        return _weighed(self._theirs.fromkeys(*given))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._theirs, name)

    def __repr__(self) -> str:
        return repr(self._theirs)


def _namespaces(theirs: type[Any]) -> type[Any]:
    class Namespace(theirs):  # type: ignore[misc]
        def __repr__(self) -> str:
            # What it holds may change after it was weighed.
            raise OverBudget("it prints a namespace, and a namespace has no bound")

    return Namespace


def _weighed(value: Any) -> Any:
    if _weight(value) > TEXT_CHARACTERS:
        raise OverBudget(f"a list or object of it prints more than {TEXT_CHARACTERS // 2**20} million characters")
    return value


def _weight(value: Any) -> int:
    """About how many characters a value prints; what stands in it twice counts twice."""
    kind = type(value)
    if kind is str:
        return len(value)
    if kind is dict:
        parts: Iterable[Any] = value.values()
    elif kind in CONTAINERS:
        parts = value
    else:
        return len(value) if isinstance(value, str) else POINTER_BYTES
    known = _budget.weighed.get(id(value))
    if known is not None:
        return known[0]
    weight = POINTER_BYTES * (len(value) + 1)
    for part in parts:
        weight += len(part) if type(part) is str else _weight(part)
    if kind is dict:
        weight += sum(len(key) for key in value if isinstance(key, str))
    # The sandbox lets nobody change a container, and the entry keeps it alive, so that its id stays its own.
    _budget.weighed[id(value)] = (weight, value)
    return weight


def _depth(value: Any) -> int:
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return 1 + max(map(_depth, parts), default=0)


def _paid(original: Callable[..., Any], *given: Any, **more: Any) -> Any:
    text = original(*given, **more)
    _spend(len(text))
    return text


def _tojson(original: Callable[..., str], x: Any, *given: Any, **more: Any) -> str:
    indent = more.get("indent", given[1] if len(given) > 1 else None)
    if indent is not None:  # at most one line for every pointer and comma
        _spend(_weight(x) // POINTER_BYTES * _depth(x) * (indent if isinstance(indent, int) else len(indent)))
    text = original(x, *given, **more)
    _spend(len(text))
    return text


def _round(original: Callable[..., float], value: Any, precision: int = 0, method: Any = "common") -> float:
    if isinstance(precision, int) and abs(precision) > POWER_BITS:
        raise OverBudget("it rounds to more than 4096 places")
    return original(value, precision, method)


def _indent(original: Callable[..., str], s: Any, width: Any = 4, *given: Any, **more: Any) -> str:
    if isinstance(s, str):
        _spend(len(s) + (s.count("\n") + 1) * (width if isinstance(width, int) else len(width)))
    return original(s, width, *given, **more)


def _paid_method(method: Any) -> Any:
    """``join`` or ``replace`` of a text, such that it pays; anything else as it is."""
    text = getattr(method, "__self__", None)
    if not isinstance(text, str):
        return method
    if method.__name__ == "join":
        return functools.partial(_joined, text, method)
    return functools.partial(_replaced, text, method)


def _joined(text: str, method: Callable[[Any], str], parts: Iterable[Any]) -> str:
    kept = list(parts)
    _spend(sum(len(part) for part in kept if isinstance(part, str)) + len(text) * len(kept))
    return method(kept)


def _replaced(text: str, method: Callable[..., str], old: Any, new: Any, *count: Any) -> str:
    if isinstance(old, str) and isinstance(new, str):
        _spend(len(text) + text.count(old) * len(new))
    return method(old, new, *count)


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
        kind = result.__class__
        if kind is str:
            _spend(len(result))
        elif kind is list:
            # Only doubling is dear: a list that gets one more with every turn is copied, and the copy let go.
            _spend(POINTER_BYTES * min(len(left), len(right)))
            _budget.weighed[id(result)] = (_weight(left) + _weight(right), result)
            _weighed(result)
        return result
    if sign == "*":
        for many, text in ((left, right), (right, left)):
            if isinstance(many, int) and isinstance(text, str | list | tuple):
                _spend(POINTER_BYTES * max(0, many) * len(text))
        result = _small(operator.mul, left, right)
        return _weighed(result) if isinstance(result, list | tuple) else result
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
    pieces = iter(pieces)
    kept = list(islice(pieces, PIECES))
    _spend(sum(map(len, kept)) + PIECE_BYTES * len(kept))
    if len(kept) == PIECES:
        while more := list(islice(pieces, PIECES)):
            _spend(sum(map(len, more)) + PIECE_BYTES * len(more))
            kept += more
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
