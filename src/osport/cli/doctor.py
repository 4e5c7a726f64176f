"""``osport doctor``: what is wrong, where, and what to do."""

from __future__ import annotations

import json

import cattrs
import click

from osport.doctor import diagnose

__all__ = ["doctor"]

COLOURS = {"ok": "green", "note": "yellow", "problem": "red"}


@click.command()
@click.argument("reference", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for machines.")
def doctor(reference: str | None, as_json: bool) -> None:
    """Look at this machine, its engines and plugins; with REFERENCE (backend:model), at that model, too.

    Exit code 1 when there is a problem.
    """
    findings = diagnose(reference)
    problems = [finding for finding in findings if finding.level == "problem"]
    if as_json:
        found = {"ok": not problems, "findings": cattrs.unstructure(findings)}
        click.echo(json.dumps(found, indent=2, ensure_ascii=False))
    else:
        for finding in findings:
            click.secho(str(finding), fg=COLOURS[finding.level])
        click.echo(f"{len(problems)} problem(s)")
    click.get_current_context().exit(1 if problems else 0)
