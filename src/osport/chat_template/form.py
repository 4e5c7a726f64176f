"""Reads from a template's form what it reaches for, and whether the budget and the deadline can bound it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

__all__ = ["forbidden", "keeps_sums", "unbounded"]

# Names that lead from a value to the interpreter. The sandbox refuses them too; no chat template has a use for them.
INTERNALS = re.compile(
    r"__(class|mro|bases?|subclasses|globals|builtins|init|import|dict|reduce|reduce_ex|getattribute|code|self|call|"
    r"module|func|closure|loader|spec|new|del|getattr|setattr)__"
)

FILTERS = frozenset(
    (  # noqa: SIM905 - words in a row read better than a column of literals
        "abs attr capitalize count d default dictsort e escape first float from_json int items join last length "
        "list lower map max min reject rejectattr replace reverse round safe select selectattr sort string sum "
        "title tojson trim unique upper"
    ).split()
)
METHODS = frozenset(
    (  # noqa: SIM905 - words in a row read better than a column of literals
        "append capitalize copy count endswith extend find get index insert isdigit items join keys lower lstrip "
        "pop replace rfind rsplit rstrip setdefault split splitlines startswith strip title update upper values"
    ).split()
)
FUNCTIONS = frozenset(
    (  # noqa: SIM905 - words in a row read better than a column of literals
        "range namespace dict raise_exception strftime_now caller joiner cycler super self"
    ).split()
)
TEXT_FILTERS = frozenset(
    (  # noqa: SIM905 - words in a row read better than a column of literals
        "capitalize count e escape float int join length lower replace round string title tojson trim upper"
    ).split()
)
TEXT_METHODS = frozenset(
    (  # noqa: SIM905 - words in a row read better than a column of literals
        "capitalize count endswith find index isdigit join lower lstrip replace rstrip split splitlines "
        "startswith strip title upper"
    ).split()
)
WIDEST_INDENT = 64


def forbidden(tree: Any) -> str | None:
    """Where a template reaches for the interpreter's internals, None when it does not."""
    from jinja2 import nodes

    for node in tree.find_all((nodes.Getattr, nodes.Const, nodes.Name, nodes.NSRef, nodes.Keyword)):
        text = next(
            (v for name in ("attr", "value", "name", "key") if isinstance(v := getattr(node, name, None), str)), ""
        )
        if found := INTERNALS.search(text):
            return f"line {node.lineno}: {found.group()}"
    return None


def unbounded(tree: Any) -> str | None:
    """Why the cost of this template cannot be bounded while it runs here, or None when it can."""
    from jinja2 import nodes

    macros = {macro.name for macro in tree.find_all(nodes.Macro)}
    for node in tree.find_all((nodes.Filter, nodes.Call, nodes.For)):
        if isinstance(node, nodes.For):
            if node.recursive:
                return f"line {node.lineno}: a recursive loop"
        elif isinstance(node, nodes.Filter):
            if (reason := _filter(node)) is not None:
                return f"line {node.lineno}: {reason}"
        elif (reason := _call(node, macros)) is not None:
            return f"line {node.lineno}: {reason}"
    if (name := _nests_itself(tree)) is not None:
        return f"{name} is put into a container that becomes {name} again"
    return None


def keeps_sums(tree: Any) -> bool:
    """Whether the result of a + may be stored, or passed on to a macro, so that sums can grow from sums."""
    from jinja2 import nodes

    macros = {macro.name for macro in tree.find_all(nodes.Macro)}
    for node in tree.find_all((nodes.Assign, nodes.With, nodes.Call)):
        called = isinstance(node, nodes.Call)
        if (not called or getattr(node.node, "name", None) in macros) and node.find(nodes.Add) is not None:
            return True
    return False


def _filter(node: Any) -> str | None:
    from jinja2 import nodes

    if node.name == "indent":
        width = node.args[0] if node.args else nodes.Const(4)
        if isinstance(width, nodes.Const) and isinstance(width.value, int) and width.value <= WIDEST_INDENT:
            return None
        return "the filter indent with a width that is not a small number"
    if node.name not in FILTERS:
        return f"the filter {node.name}"
    if node.name == "tojson":
        given = [*node.args, *(keyword.value for keyword in node.kwargs)]
        if all(isinstance(value, nodes.Const | nodes.Tuple) for value in given):
            wide = [v.value for v in given if isinstance(v, nodes.Const) and isinstance(v.value, int)]
            return None if all(value <= WIDEST_INDENT for value in wide) else "tojson with a wide indent"
        return "tojson with a computed indent"
    if node.name in {"map", "select", "reject"} and node.args:
        inner = node.args[0]
        if not isinstance(inner, nodes.Const) or (node.name == "map" and inner.value not in FILTERS):
            return f"the filter {node.name} over {getattr(inner, 'value', 'a computed name')}"
    return None


def _call(node: Any, macros: set[str]) -> str | None:
    from jinja2 import nodes

    callee = node.node
    if isinstance(callee, nodes.Name):
        if callee.name == "strftime_now":
            constant = len(node.args) == 1 and isinstance(node.args[0], nodes.Const)
            return (
                None if constant and not any(c.isdigit() for c in str(node.args[0].value)) else "a computed date format"
            )
        return None if callee.name in FUNCTIONS | macros else f"a call of {callee.name}"
    if isinstance(callee, nodes.Getattr):
        if callee.attr == "join":
            return "join() of a string; the filter join is bounded"
        if callee.attr == "replace" and not (len(node.args) >= 2 and isinstance(node.args[1], nodes.Const)):
            return "replace() by a computed text"
        return None if callee.attr in METHODS else f"a call of {callee.attr}()"
    if isinstance(callee, nodes.ExtensionAttribute):  # the generation tag of transformers
        return None
    return "a call of something computed"


def _nests_itself(tree: Any) -> str | None:
    """A variable that is put into a container which becomes that variable again, once every round of a loop.

    Each round may double the text that the value prints, without making any text yet. Assignments are
    edges of a graph, weighted by how much deeper the value gets: a list, tuple or dict around it is one
    level more, an element out of it one level less. A cycle that gains depth is what must not be.
    """
    from jinja2 import nodes

    macros = {macro.name: macro for macro in tree.find_all(nodes.Macro)}
    for scope in tree.find_all((nodes.For, nodes.Macro)):
        bodies = [scope, *(macros[name] for name in _called(scope, macros) if macros[name] is not scope)]
        edges = [edge for body in bodies for edge in _edges(body, macros)]
        if (name := _gaining_cycle(edges)) is not None:
            return name
    return None


def _called(scope: Any, macros: dict[str, Any]) -> set[str]:
    from jinja2 import nodes

    seen: set[str] = set()
    todo = [scope]
    while todo:
        for call in todo.pop().find_all(nodes.Call):
            name = getattr(call.node, "name", None)
            if name in macros and name not in seen:
                seen.add(name)
                todo.append(macros[name])
    return seen


def _edges(body: Any, macros: dict[str, Any]) -> Iterator[tuple[str, str, int]]:
    """(read variable, assigned variable, levels gained) for every assignment inside this body."""
    from jinja2 import nodes

    for node in body.find_all((nodes.Assign, nodes.For, nodes.With, nodes.Call)):
        if isinstance(node, nodes.Assign):
            pairs: list[tuple[Any, Any, int]] = [(node.target, node.node, 0)]
        elif isinstance(node, nodes.For):
            unpacked = isinstance(node.target, nodes.Tuple)
            pairs = [(node.target, node.iter, -1 if unpacked or not isinstance(node.iter, nodes.Call) else 0)]
        elif isinstance(node, nodes.With):
            pairs = [(target, value, 0) for target, value in zip(node.targets, node.values, strict=True)]
        else:
            macro = macros.get(getattr(node.node, "name", ""))
            pairs = [(target, value, 0) for target in macro.args for value in node.args] if macro else []
        for target, value, gained in pairs:
            for name, levels in _sources(value):
                for assigned, _ in _sources(target):
                    yield name, assigned, levels + gained


def _sources(node: Any) -> Iterator[tuple[str, int]]:
    """Variables whose value may end up inside the value of an expression, and how many levels down."""
    from jinja2 import nodes

    if isinstance(node, nodes.NSRef):
        yield f"{node.name}.{node.attr}", 0
    elif isinstance(node, nodes.Name):
        yield node.name, 0
    elif isinstance(node, nodes.Getattr) and isinstance(node.node, nodes.Name):
        yield f"{node.node.name}.{node.attr}", 0
        yield node.node.name, -1
    elif isinstance(node, nodes.Concat | nodes.Compare | nodes.Test | nodes.Not):
        return  # makes text or a truth value
    elif isinstance(node, nodes.Filter) and node.name in TEXT_FILTERS:
        return
    elif isinstance(node, nodes.Call) and getattr(node.node, "attr", "") == "replace":
        old, new = (getattr(argument, "value", None) for argument in node.args[:2])
        if not (isinstance(old, str) and isinstance(new, str) and len(new) <= len(old)):
            receiver: Any = node.node
            for name, levels in _sources(receiver.node):
                yield name, levels + 1  # text that grows in every round, which no budget sees
    elif isinstance(node, nodes.Call) and getattr(node.node, "attr", "") in TEXT_METHODS:
        return
    else:
        boxes = isinstance(node, nodes.List | nodes.Tuple | nodes.Dict) or (
            isinstance(node, nodes.Call) and getattr(node.node, "name", "") in {"dict", "namespace"}
        )
        element = isinstance(node, nodes.Getattr) or (
            isinstance(node, nodes.Getitem) and not isinstance(node.arg, nodes.Slice)
        )
        for child in node.iter_child_nodes():
            for name, levels in _sources(child):
                yield name, levels + boxes - element


def _gaining_cycle(edges: list[tuple[str, str, int]]) -> str | None:
    depth = dict.fromkeys({name for read, assigned, _ in edges for name in (read, assigned)}, 0)
    for _ in range(len(depth) + 1):
        deeper = [(assigned, depth[read] + gained) for read, assigned, gained in edges]
        changed = None
        for name, levels in deeper:
            if levels > depth[name]:
                depth[name], changed = levels, name
        if changed is None:
            return None
    return changed
