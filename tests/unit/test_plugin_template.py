"""The template of a plugin package: rendered, installed beside this environment, tested and type-checked there."""

import subprocess
import sys
import venv
from pathlib import Path

import copier
import pytest
import yaml

from osport.testing import PLUGIN_TEMPLATE

ROOT = Path(__file__).parents[2]


def render(folder, **answers):
    copier.run_copy(str(PLUGIN_TEMPLATE), folder, data=answers, defaults=True, quiet=True)
    return folder


@pytest.fixture(scope="module")
def plugin(tmp_path_factory):
    return render(tmp_path_factory.mktemp("made") / "plugin", backend="deep_thought", author="Somebody")


@pytest.fixture(scope="module")
def beside_us(plugin, tmp_path_factory):
    """Runs a module in an environment of its own that holds the plugin, and sees the packages of this one."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    site = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], capture_output=True, text=True
    ).stdout.strip()
    ours = [path for path in (str(ROOT / "src"), *sys.path) if path.endswith(("site-packages", "src"))]
    Path(site, "ours.pth").write_text("\n".join(ours))

    def run(*arguments):
        command = [python, "-m", *arguments]
        return subprocess.run(command, cwd=plugin, capture_output=True, text=True, timeout=300)

    installed = run("pip", "install", "-q", "--no-deps", "--no-build-isolation", "--no-index", ".")
    assert installed.returncode == 0, installed.stderr
    return run


def test_the_rendered_plugin_passes_the_whole_contract(beside_us):
    run = beside_us("pytest", "-q", "-p", "no:cacheprovider")
    assert run.returncode == 0, run.stdout + run.stderr
    assert " passed" in run.stdout


def test_the_rendered_plugin_passes_strict_mypy(beside_us):
    run = beside_us("mypy", "--no-incremental")
    assert run.returncode == 0, run.stdout + run.stderr


def test_the_rendered_plugin_keeps_its_own_style(beside_us):
    for command in (["check", "."], ["format", "--check", "."]):
        run = beside_us("ruff", *command)
        assert run.returncode == 0, run.stdout + run.stderr


def test_the_rendered_workflow_is_one(plugin):
    workflow = yaml.safe_load((plugin / ".github" / "workflows" / "ci.yml").read_text())
    commands = [step.get("run", "") for step in workflow["jobs"]["test"]["steps"]]
    assert {"mypy", "pytest"} <= set(commands)


def test_nothing_of_the_template_is_left_over(tmp_path):
    for path in render(tmp_path / "plugin", backend="deep_thought").rglob("*"):
        assert "{{" not in path.name
        if path.is_file() and path.name != "ci.yml":
            assert "{{" not in path.read_text(), path
            assert "{%" not in path.read_text(), path


@pytest.mark.parametrize("name", ["Deep", "deep-thought", "1st", ""])
def test_a_name_that_no_reference_could_hold_is_refused(tmp_path, name):
    with pytest.raises(ValueError, match="lower-case"):
        render(tmp_path / "plugin", backend=name)
