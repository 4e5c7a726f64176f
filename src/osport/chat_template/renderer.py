"""The one door to Jinja: transformers' sandbox and transformers' rendering function, with the clock pinned."""

from __future__ import annotations

import contextlib
import functools
import inspect
import os
import sys
import traceback
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from osport.chat_template import limits
from osport.chat_template.child import render_in_child
from osport.chat_template.deadline import COMPILE_SECONDS, OutOfMemory, OutOfTime, deadline
from osport.chat_template.form import forbidden, keeps_sums, unbounded, with_guards
from osport.errors import MissingDependency, TemplateError

__all__ = ["compiled", "stopped", "variables"]

Render = Callable[..., str]
STOPPED_BY_US = "the chat template was stopped: "
STOPPED = (limits.OverBudget, OutOfTime, OutOfMemory)


@functools.lru_cache(maxsize=256)
def compiled(source: str, now: datetime) -> Render:
    """Compile a template once for each (text, clock) and return the function that renders it.

    The environment is the one that transformers builds for this template: an immutable sandbox
    with its filters and globals. Only ``strftime_now`` is replaced, so that a render does not
    change from day to day. A template whose form does not bound its cost is rendered in a child
    process, under limits. Raises :class:`~osport.errors.TemplateError` naming line and cause.
    """
    with in_time(COMPILE_SECONDS):
        reason = _examined(source)
        return in_process(source, now) if reason is None else functools.partial(render_in_child, source, now, reason)


def _examined(source: str) -> str | None:
    """Why the template must not be rendered in this process; raises when it must not be rendered at all."""
    limits.check_size(source)
    try:
        tree = _parsed(source)
        if (place := forbidden(tree)) is not None:
            raise TemplateError(f"the chat template reaches for the internals of Python and is refused: {place}")
        return unbounded(tree)
    except RecursionError as error:
        raise TemplateError(f"the chat template does not compile: RecursionError: {error}") from error


@functools.lru_cache(maxsize=256)
def in_process(source: str, now: datetime) -> Render:
    """The function that renders this template here; :func:`compiled` decides whether it may."""
    theirs = _transformers_renderer()
    import jinja2

    environment = _environment()
    environment.globals["strftime_now"] = now.strftime
    tree = _parsed(source)
    limits.guard(environment, sums=keeps_sums(tree))
    try:
        guarded = with_guards(tree)
        guarded.set_environment(environment)
        template = environment.from_string(guarded)
    except STOPPED:
        raise
    except jinja2.TemplateSyntaxError as error:
        raise TemplateError(f"the chat template does not compile: line {error.lineno}: {error.message}") from error
    except Exception as error:
        raise TemplateError(f"the chat template does not compile: {type(error).__name__}: {error}") from error
    limits.count_concatenation(template)

    # transformers' function over our compiled template: rebinding one global in a copy of the
    # function leaves the module, and everybody else who uses it, alone.
    rebound = {**vars(theirs), "_compile_jinja_template": lambda text: template}
    original = theirs.render_jinja_template
    render_all = types.FunctionType(original.__code__, rebound, argdefs=original.__defaults__)

    def render(
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        continue_final: bool | str = False,
        plain: bool = False,
        **variables: Any,
    ) -> str:
        try:
            with deadline():
                limits.budget()
                if plain and not continue_final:
                    # Roles and texts of exact type are what transformers' function would make of them.
                    return str(
                        template.render(
                            messages=messages,
                            tools=None,
                            documents=None,
                            add_generation_prompt=add_generation_prompt,
                            **variables,
                        )
                    )
                texts, _ = render_all(
                    [messages],
                    tools=tools,
                    chat_template=source,
                    add_generation_prompt=add_generation_prompt,
                    continue_final_message=continue_final,
                    **variables,
                )
        except Exception as error:
            raise TemplateError(_cause(error, jinja2.TemplateError)) from error
        finally:
            limits.settle()
        return str(texts[0])

    return render


@functools.lru_cache(maxsize=256)
def variables(source: str) -> frozenset[str]:
    """The names that the template reads and does not set itself.

    Jinja's own analysis takes a name that is set anywhere for declared, so names that a template
    reads before it sets them are counted from the tree.
    """
    import jinja2.meta
    import jinja2.nodes

    tree = _parsed(source)
    undeclared = set(jinja2.meta.find_undeclared_variables(tree))
    undeclared |= {name.name for name in tree.find_all(jinja2.nodes.Name) if name.ctx == "load"}
    return frozenset(undeclared)


@functools.lru_cache(maxsize=256)
def unguarded(source: str) -> frozenset[str]:
    """The names that the template reads without asking first whether they are defined."""
    import jinja2.meta
    import jinja2.nodes

    tree = _parsed(source)
    asked = {node.node.name for node in tree.find_all(jinja2.nodes.Test) if isinstance(node.node, jinja2.nodes.Name)}
    asked |= {
        node.node.name
        for node in tree.find_all(jinja2.nodes.Filter)
        if node.name in ("default", "d") and isinstance(node.node, jinja2.nodes.Name)
    }
    # A name alone as a condition is a question too: an undefined one is false.
    for branch in tree.find_all((jinja2.nodes.If, jinja2.nodes.CondExpr)):
        for node in (branch.test, *branch.test.find_all(jinja2.nodes.Name)):
            if isinstance(node, jinja2.nodes.Name):
                asked.add(node.name)
    targets = {name.name for name in tree.find_all(jinja2.nodes.Name) if name.ctx in ("store", "param")}
    targets |= {macro.name for macro in tree.find_all(jinja2.nodes.Macro)}
    return frozenset(jinja2.meta.find_undeclared_variables(tree)) - asked - targets


@functools.lru_cache(maxsize=256)
def literals(source: str) -> str:
    """All text that the template may write by itself, pieces apart by a null character."""
    import jinja2.nodes

    tree = _parsed(source)
    found = [node.data for node in tree.find_all(jinja2.nodes.TemplateData)]
    found += [node.value for node in tree.find_all(jinja2.nodes.Const) if isinstance(node.value, str)]
    return "\0".join(found)


@contextlib.contextmanager
def in_time(seconds: float | None = None) -> Iterator[None]:
    """Everything inside together gets so much time, by default that of one render."""
    _environment()  # not the time that the import of transformers takes, which is a second and more
    try:
        with deadline(seconds):
            yield
    except STOPPED as error:
        raise TemplateError(f"{STOPPED_BY_US}{error}") from error


def stopped(error: TemplateError) -> bool:
    """Whether the template ran out of its time or memory, and did not refuse anything."""
    return str(error).startswith(STOPPED_BY_US)


def _environment() -> Any:
    theirs = _transformers_renderer()
    try:
        # Past its cache: a fresh sandbox, nobody else's.
        return inspect.unwrap(theirs._compile_jinja_template)("").environment
    except ImportError as error:  # transformers refuses a jinja2 whose sandbox is known to leak
        raise TemplateError(str(error)) from error


def _parsed(source: str) -> Any:
    environment = _environment()
    import jinja2

    try:
        return environment.parse(source)
    except jinja2.TemplateSyntaxError as error:
        raise TemplateError(f"the chat template does not compile: line {error.lineno}: {error.message}") from error
    except (RecursionError, MemoryError, ValueError) as error:
        raise TemplateError(f"the chat template does not compile: {type(error).__name__}: {error}") from error


def _transformers_renderer() -> Any:
    """Import the module without transformers' advice on missing deep-learning frameworks."""
    quiet = "TRANSFORMERS_NO_ADVISORY_WARNINGS"
    silenced = "transformers" not in sys.modules and quiet not in os.environ
    if silenced:
        os.environ[quiet] = "1"
    try:
        from transformers.utils import chat_template_utils
    except ImportError:
        raise MissingDependency("transformers", "templates") from None
    finally:
        if silenced:
            del os.environ[quiet]
    return chat_template_utils


def _cause(error: Exception, template_error: type[Exception]) -> str:
    if isinstance(error, STOPPED):
        return f"{STOPPED_BY_US}{error}"
    frames = traceback.walk_tb(error.__traceback__)
    lines = [line for frame, line in frames if frame.f_code.co_filename == "<template>"]
    where = f"line {lines[-1]}: " if lines else ""
    if type(error) is template_error:  # what raise_exception() in a template raises
        return f"the chat template refuses this conversation: {where}{error}"
    return f"the chat template fails on this conversation: {where}{type(error).__name__}: {error}"
