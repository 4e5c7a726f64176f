"""Reads from a template's form what it reaches for and whether its cost can be bounded, and puts guards into it."""

from __future__ import annotations

import re
from typing import Any

__all__ = ["forbidden", "keeps_sums", "unbounded", "with_guards"]

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
WEIGHED, PAID = "osport_weighed", "osport_paid"  # filters of limits.guard
WIDEST_INDENT = 64
MANY_SUMS = 500  # a published template has under a hundred


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
    return None


def keeps_sums(tree: Any) -> bool:
    """Whether the result of a + may be stored, or passed on to a macro, so that sums can grow from sums."""
    from jinja2 import nodes

    if sum(1 for _ in tree.find_all(nodes.Add)) > MANY_SUMS:
        return True
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
        return None if callee.attr in METHODS else f"a call of {callee.attr}()"
    if isinstance(callee, nodes.ExtensionAttribute):  # the generation tag of transformers
        return None
    return "a call of something computed"


def with_guards(tree: Any) -> Any:
    """The same template with a guard at the two places that no operator and no filter sees.

    Containers written in the template are weighed: ``[x, x]``, repeated, doubles the text that it prints
    without making any text yet. ``join`` and ``replace`` called as methods pay for the text that they make.
    """
    from jinja2 import nodes, visitor

    class Guards(visitor.NodeTransformer):
        inside = False

        def visit_List(self, node: Any) -> Any:  # noqa: N802 - jinja's name
            if self.inside or _constant(node):
                return self.generic_visit(node)
            self.inside = True
            self.generic_visit(node)
            self.inside = False
            return nodes.Filter(node, WEIGHED, [], [], None, None, lineno=node.lineno)

        def visit_Tuple(self, node: Any) -> Any:  # noqa: N802
            return self.visit_List(node) if node.ctx == "load" else self.generic_visit(node)

        visit_Dict = visit_List  # noqa: N815

        def visit_Call(self, node: Any) -> Any:  # noqa: N802
            callee = node.node
            self.generic_visit(node)
            if isinstance(callee, nodes.Getattr) and callee.attr in ("join", "replace"):
                node.node = nodes.Filter(callee, PAID, [], [], None, None, lineno=node.lineno)
            return node

    return Guards().visit(tree)


def _constant(node: Any) -> bool:
    from jinja2 import nodes

    return node.find((nodes.Name, nodes.Call, nodes.Filter, nodes.Getattr, nodes.Getitem, nodes.Mul)) is None
