"""``osport probe``: which constraints a backend really enforces."""

from __future__ import annotations

import json

import cattrs
import click

from osport.model import Model
from osport.probing import probe_constraints

__all__ = ["probe"]


@click.command()
@click.argument("reference")
@click.option("--tries", default=3, show_default=True, help="Tries for each kind of constraint.")
@click.option("--fresh", is_flag=True, help="Probe again, whatever an earlier probe found.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for machines.")
def probe(reference: str, tries: int, fresh: bool, as_json: bool) -> None:
    """Ask REFERENCE (backend:model) for a plain word while only a random string is allowed.

    Exit code 1 when a constraint was taken and dropped.
    """
    with Model(reference) as model:
        found = probe_constraints(model, tries=tries, fresh=fresh)
    click.echo(json.dumps(cattrs.unstructure(found), indent=2, ensure_ascii=False) if as_json else str(found))
    click.get_current_context().exit(1 if found.dropped else 0)
