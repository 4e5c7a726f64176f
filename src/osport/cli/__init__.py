"""The command line: thin over the public API.

Exit codes: 0 done (``port``: PASS), 1 ``port``: FAIL, ``doctor``: a problem, ``probe``: a dropped constraint,
2 wrong usage or input, 3 ``port``: INCONCLUSIVE, 4 ``port``: no decision (no incumbent), 5 an engine, server or
plugin failed, 130 interrupted.
"""

from __future__ import annotations

import sys
from typing import NoReturn

import click

from osport import __version__
from osport.cli import commands
from osport.cli.doctor import doctor
from osport.cli.license import license_group
from osport.cli.probe import probe
from osport.cli.template import template
from osport.cli.vram import vram
from osport.errors import BackendError, ModelNotFound, OsportError, OutputError, PluginError

__all__ = ["app", "main"]


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="osport")
def app() -> None:
    """Take one task off a closed model and put it on an open-weight model, with data instead of faith."""


for command in (*commands.ALL, doctor, license_group, probe, template, vram):
    app.add_command(command)


def main() -> NoReturn:
    """The ``osport`` command."""
    try:
        code = app.main(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except OsportError as error:
        click.echo(f"osport: {error}", err=True)
        engine_failed = isinstance(error, BackendError | OutputError | PluginError)
        code = 5 if engine_failed and not isinstance(error, ModelNotFound) else 2
    except (KeyboardInterrupt, click.Abort):
        click.echo("osport: interrupted", err=True)
        code = 130
    sys.exit(code if isinstance(code, int) else 0)
