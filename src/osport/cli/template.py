"""``osport template``: audit, render and compare chat templates."""

from __future__ import annotations

import difflib
import json
import sys
from pathlib import Path
from typing import Any

import click
from attrs import asdict

from osport import __version__
from osport.chat_template import ChatTemplate, Conversation
from osport.core.types import Message
from osport.errors import UsageError
from osport.store import catalogue, model_path

__all__ = ["template"]

COLOURS = ("green", "cyan", "yellow", "magenta")
NAME = click.option("--name", help="One of several templates of a file or folder (tool_use, rag).")


@click.group()
def template() -> None:
    """Look at a chat template: what it keeps of a request, and the prompt that it writes.

    MODEL is a .gguf file, the name of a pulled model, a tokenizer folder, a .jinja file, or the URL of a llama.cpp
    server.
    """


@template.command()
@click.argument("model")
@NAME
@click.option("--request", "request_file", type=click.Path(path_type=Path), help="A Claude Messages request as JSON.")
@click.option("--format", "form", type=click.Choice(["text", "json", "sarif"]), default="text")
def audit(model: str, name: str | None, request_file: Path | None, form: str) -> None:
    """What the template loses of a request. Exit code 1 when something is lost."""
    report = _template(model, name).audit(_conversation(request_file))
    click.echo({"json": report.to_json, "sarif": lambda: report.to_sarif(__version__), "text": report.__str__}[form]())
    sys.exit(1 if report.errors else 0)


@template.command()
@click.argument("model")
@NAME
@click.option("--request", "request_file", type=click.Path(path_type=Path), help="A Claude Messages request as JSON.")
@click.option("--adapt", is_flag=True, help="Bring the request into the form that the template keeps.")
@click.option("--json", "as_json", is_flag=True, help="Text and spans for programs.")
def render(model: str, name: str | None, request_file: Path | None, adapt: bool, as_json: bool) -> None:
    """The prompt, the caller's own text in colours."""
    chosen, conversation = _template(model, name), _conversation(request_file)
    losses = conversation.losses
    for loss in losses:
        click.echo(f"not carried over: {loss}", err=True)
    if adapt:
        plan = conversation.adapt(chosen)
        conversation = plan.conversation
        for change in plan.changes:
            click.echo(f"adapted: {change}", err=True)
    rendered = chosen.render(conversation, continue_final=conversation.prefilled)
    if as_json:
        spans = [{"start": s.start, "stop": s.stop, "part": s.part} for s in rendered.spans]
        told = {"text": rendered.text, "spans": spans, "template": chosen.hash, "losses": [asdict(x) for x in losses]}
        click.echo(json.dumps(told, ensure_ascii=False))
        return
    done = 0
    for index, span in enumerate(sorted(rendered.spans, key=lambda span: span.start)):
        click.echo(rendered.text[done : span.start], nl=False)
        click.secho(rendered.text[span.start : span.stop], fg=COLOURS[index % len(COLOURS)], nl=False)
        done = span.stop
    click.echo(rendered.text[done:])


@template.command()
@click.argument("first")
@click.argument("second")
@click.option("--request", "request_file", type=click.Path(path_type=Path), help="A Claude Messages request as JSON.")
def diff(first: str, second: str, request_file: Path | None) -> None:
    """Where two templates write the same request differently. Exit code 1 when they do."""
    conversation = _conversation(request_file)
    before, after = (
        _template(model).render(conversation, continue_final=conversation.prefilled).text.splitlines()
        for model in (first, second)
    )
    lines = list(difflib.unified_diff(before, after, first, second, lineterm=""))
    click.echo("\n".join(lines) if lines else "the prompts are equal")
    sys.exit(1 if lines else 0)


def _template(model: str, name: str | None = None) -> ChatTemplate:
    path = Path(model)
    if path.is_dir():
        return ChatTemplate.from_hf(path, name=name)
    if name is not None and (path.suffix == ".jinja" or "://" in model):
        raise UsageError("--name picks a template of a .gguf file or a tokenizer folder; here there is only one")
    if model.startswith(("http://", "https://")):
        return ChatTemplate.from_server(model)
    if path.suffix == ".jinja":
        try:
            return ChatTemplate.from_text(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"{path} cannot be read as a template: {error}") from error
    pulled = catalogue().get(model)
    return ChatTemplate.from_gguf(model_path(model) if pulled and not path.exists() else path, name=name)


def _conversation(path: Path | None) -> Conversation:
    if path is None:
        return Conversation([Message.system("You are a helpful assistant."), Message.user("Hello!")])
    try:
        payload: Any = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise UsageError(f"{path} is not JSON: {error}") from error
    return Conversation.from_anthropic(payload)
