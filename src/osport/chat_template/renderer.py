"""The one door to Jinja: transformers' sandbox and transformers' rendering function, with the clock pinned."""

from __future__ import annotations

import functools
import os
import traceback
import types
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from osport.errors import MissingDependency, TemplateError

__all__ = ["compiled"]

Render = Callable[..., str]


@functools.lru_cache(maxsize=256)
def compiled(source: str, now: datetime) -> Render:
    """Compile a template once for each (text, clock) and return the function that renders it.

    The environment is the one that transformers builds for this template: an immutable sandbox
    with its filters and globals. Only ``strftime_now`` is replaced, so that a render does not
    change from day to day. Raises :class:`~osport.errors.TemplateError` naming line and cause.
    """
    theirs = _transformers_renderer()
    import jinja2

    try:
        environment = theirs._cached_compile_jinja_template("").environment  # a fresh sandbox, nobody else's
    except ImportError as error:  # transformers refuses a jinja2 whose sandbox is known to leak
        raise TemplateError(str(error)) from error
    environment.globals["strftime_now"] = now.strftime
    try:
        template = environment.from_string(source)
    except jinja2.TemplateSyntaxError as error:
        raise TemplateError(f"the chat template does not compile: line {error.lineno}: {error.message}") from error
    except (RecursionError, MemoryError, SyntaxError, ValueError) as error:
        raise TemplateError(f"the chat template does not compile: {type(error).__name__}: {error}") from error

    # transformers' function over our compiled template: rebinding one global in a copy of the
    # function leaves the module, and everybody else who uses it, alone.
    render_all = types.FunctionType(
        theirs.render_jinja_template.__code__,
        {**vars(theirs), "_compile_jinja_template": lambda text: template},
        argdefs=theirs.render_jinja_template.__defaults__,
    )

    def render(
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        continue_final: bool = False,
        **variables: Any,
    ) -> str:
        try:
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
        return str(texts[0])

    return render


def _transformers_renderer() -> Any:
    """Import the module without transformers' advice on missing deep-learning frameworks."""
    quiet = "TRANSFORMERS_NO_ADVISORY_WARNINGS"
    before = os.environ.get(quiet)
    os.environ[quiet] = "1"
    try:
        from transformers.utils import chat_template_utils
    except ImportError:
        raise MissingDependency("transformers", "templates") from None
    finally:
        if before is None:
            del os.environ[quiet]
        else:
            os.environ[quiet] = before
    return chat_template_utils


def _cause(error: Exception, template_error: type[Exception]) -> str:
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == "<template>"]
    where = f"line {lines[-1]}: " if lines else ""
    if type(error) is template_error:  # what raise_exception() in a template raises
        return f"the chat template refuses this conversation: {where}{error}"
    return f"the chat template fails on this conversation: {where}{type(error).__name__}: {error}"
