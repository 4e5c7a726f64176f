"""The commands ``models``, ``backends``, ``generate`` and ``port``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import cattrs
import click

from osport.constrained import ConstrainedOutput
from osport.errors import UsageError
from osport.model import Model
from osport.plugin.registry import registry
from osport.port import Port
from osport.store import catalogue, pull_model

__all__ = ["ALL"]

VERDICT_CODES = {"PASS": 0, "FAIL": 1, "INCONCLUSIVE": 3, "WITHHELD": 4}

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON, for machines.")


def _print_json(value: object) -> None:
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


@click.group()
def models() -> None:
    """Model files that osport can fetch by name."""


@models.command("list")
@as_json
def list_models(as_json: bool) -> None:
    """List the catalogue, and which of it lies on this machine."""
    entries = catalogue().values()
    if as_json:
        rows = [{**cattrs.unstructure(e), "path": str(e.path), "pulled": e.path.is_file()} for e in entries]
        _print_json(rows)
        return
    for e in entries:
        where = e.path if e.path.is_file() else f"not here yet: osport models pull {e.name}"
        click.echo(f"{e.name:<16} {e.title} ({e.license}, {e.size / 1e6:.0f} MB)  {where}")


@models.command("pull")
@click.argument("name")
@as_json
def pull(name: str, as_json: bool) -> None:
    """Fetch the model NAME into the cache, checked, whole or not at all."""
    path = pull_model(name)
    if as_json:
        _print_json({"name": name, "path": str(path)})
    else:
        click.echo(path)


@click.command()
@as_json
def backends(as_json: bool) -> None:
    """List the installed backends: who offers each, what it can do, what is wrong with it."""
    found = registry().backends()
    if as_json:
        _print_json([{**cattrs.unstructure(info), "features": sorted(info.features)} for info in found])
        return
    for info in found:
        click.echo(f"{info.name:<14} {info.package:<16} {info.error or ', '.join(sorted(info.features))}")


@click.command()
@click.argument("model")
@click.argument("prompt")
@click.option("--schema", type=click.Path(path_type=Path), help="JSON Schema file that the answer must conform to.")
@click.option("--choice", multiple=True, help="An allowed answer; give it several times.")
@click.option("--regex", help="A regular expression that the whole answer must match.")
@click.option("--max-tokens", type=int, default=None)
@click.option("--temperature", type=float, default=None)
@click.option("--seed", type=int, default=None)
@as_json
def generate(
    model: str,
    prompt: str,
    schema: Path | None,
    choice: tuple[str, ...],
    regex: str | None,
    as_json: bool,
    **sampling: Any,
) -> None:
    """Ask MODEL (backend:model, a .gguf file or a server's URL) one PROMPT; "-" reads it from standard input."""
    if prompt == "-":
        prompt = sys.stdin.read()
    given = {name: value for name, value in sampling.items() if value is not None}
    output = _output(schema, choice, regex)
    with Model(model) as opened:
        if output is None and not as_json and opened.capabilities.stream:
            for delta in opened.stream(prompt, **given):
                click.echo(delta.text, nl=False)
            click.echo()
            return
        completion = opened.generate(prompt, output=output, **given)
    if as_json:
        _print_json(cattrs.unstructure(completion))
    else:
        click.echo(completion.text)


def _output(schema: Path | None, choice: tuple[str, ...], regex: str | None) -> ConstrainedOutput | None:
    if sum(bool(form) for form in (schema, choice, regex)) > 1:
        raise UsageError("give one of --schema, --choice and --regex")
    if schema is not None:
        try:
            return ConstrainedOutput.json_schema(json.loads(schema.read_text(encoding="utf-8")))
        except (OSError, ValueError) as error:
            raise UsageError(f"--schema {schema}: {error}") from error
    if choice:
        return ConstrainedOutput.choice(list(choice))
    return ConstrainedOutput.regex(regex) if regex else None


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--incumbent", help="The closed baseline: anthropic:<model>, or replay:<file.jsonl>.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder of records and report [out, beside FILE].")
@click.option("--fresh", is_flag=True, help="Start over instead of resuming from the records in --out.")
@as_json
def port(file: Path, incumbent: str | None, out: Path | None, fresh: bool, as_json: bool) -> None:
    """Run the port FILE: every arm on the golden set, then compare, decide and report.

    Exit code: 0 PASS, 1 FAIL, 3 INCONCLUSIVE, 4 no decision because there is no incumbent.
    """
    result = Port.from_file(file).run(out or file.parent / "out", incumbent=incumbent, resume=not fresh)
    if as_json:
        _print_json({"verdict": result.decision.verdict, "report": str(result.report)})
    else:
        click.echo(f"{result.decision.verdict}: {result.decision.reason}")
        click.echo(f"report: {result.report}")
    sys.exit(VERDICT_CODES[result.decision.verdict])


ALL = (models, backends, generate, port)
