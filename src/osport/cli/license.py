"""The commands ``license check``, ``license compare`` and ``license notice``.

Exit codes of ``check``: 0 allowed, 1 denied, 2 unknown (or wrong usage). ``compare``: 0 when the best model is allowed,
else that of the best. ``notice``: 0, or 1 / 2 like ``check`` when a model may not be used.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from osport.licenses.export import cyclonedx_json
from osport.licenses.notice import notice_text
from osport.licenses.project_file import ProjectPolicy
from osport.licenses.verdict import Verdict

__all__ = ["license_group"]

DEFAULT_FILE = Path("osport-license.toml")

policy_option = click.option(
    "--policy",
    "policy_file",
    type=click.Path(path_type=Path),
    help=f"The project's policy file (default: {DEFAULT_FILE}, if there).",
)
license_option = click.option(
    "--license", "license_name", help="What the licence is said to be: tag, SPDX expression, key."
)
text_option = click.option(
    "--text", "text_file", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="A licence text."
)
teacher_option = click.option(
    "--teacher", "teachers", multiple=True, help="A model whose outputs trained it; may be repeated."
)
base_option = click.option("--base", "bases", multiple=True, help="A model that it was made from; may be repeated.")


@click.group("license")
def license_group() -> None:
    """Hold an intended use against the licence of a model. Not legal advice."""


def _project(policy_file: Path | None) -> ProjectPolicy:
    if policy_file is not None:
        return ProjectPolicy.read(policy_file)
    return ProjectPolicy.read(DEFAULT_FILE) if DEFAULT_FILE.is_file() else ProjectPolicy()


@license_group.command("check")
@click.argument("model", required=False)
@policy_option
@license_option
@text_option
@base_option
@teacher_option
@click.option("--format", "form", type=click.Choice(["text", "json", "cyclonedx"]), default="text", show_default=True)
@click.pass_context
def check(context: click.Context, /, model: str | None, policy_file: Path | None, form: str, **how: Any) -> None:
    """Check MODEL: a name, a GGUF file or a model folder."""
    project = _project(policy_file)
    verdict = _verdict(project, model, **how)
    decision = project.decide(verdict)
    if form == "json":
        decided = {"decision": decision.word, "why": decision.why, **verdict.to_dict()}
        click.echo(json.dumps(decided, indent=2, ensure_ascii=False))
    elif form == "cyclonedx":
        click.echo(cyclonedx_json([verdict]))
    else:
        click.echo(f"{verdict}\n  decision: {decision.word} ({decision.why})")
    context.exit(decision.exit_code)


def _verdict(
    project: ProjectPolicy,
    model: str | None,
    license_name: str | None,
    text_file: Path | None,
    bases: tuple[str, ...],
    teachers: tuple[str, ...],
) -> Verdict:
    text = text_file.read_bytes() if text_file else None
    return project.policy().check(model, license=license_name, text=text, base_models=bases, teachers=teachers)


@license_group.command("compare")
@click.argument("models", nargs=-1, required=True)
@policy_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for machines.")
@click.pass_context
def compare(context: click.Context, models: tuple[str, ...], policy_file: Path | None, as_json: bool) -> None:
    """Compare MODELS for the project's use, best first."""
    project = _project(policy_file)
    comparison = project.policy().compare(models)
    click.echo(comparison.to_json() if as_json else str(comparison))
    context.exit(min(project.decide(verdict).exit_code for verdict in comparison))


@license_group.command("notice")
@click.argument("models", nargs=-1, required=True)
@policy_option
@click.option(
    "--output", "-o", type=click.Path(path_type=Path, dir_okay=False), help="Write there instead of to the terminal."
)
@click.pass_context
def notice(context: click.Context, models: tuple[str, ...], policy_file: Path | None, output: Path | None) -> None:
    """Print the NOTICE file for MODELS: the exact strings that their licences want shipped or displayed."""
    project = _project(policy_file)
    policy = project.policy()
    verdicts = [policy.check(model) for model in models]
    if output is None:
        click.echo(notice_text(verdicts), nl=False)
    else:
        output.write_text(notice_text(verdicts), encoding="utf-8")
        click.echo(f"{output}: {len(verdicts)} model(s)")
    codes = [project.decide(verdict).exit_code for verdict in verdicts]
    context.exit(1 if 1 in codes else max(codes))
