"""Real packages, installed into a folder of their own and found through their entry points."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGES = Path(__file__).parent.parent / "plugin_package"


@pytest.fixture(scope="session")
def installed(tmp_path_factory):
    """A function that installs some of the sample packages and runs Python beside them."""
    folders = {}

    def run(code, *packages, **environment):
        for package in packages:
            if package not in folders:
                folders[package] = tmp_path_factory.mktemp(package)
                pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation"]
                subprocess.run([*pip, "--target", folders[package], PACKAGES / package], check=True)
        path = os.pathsep.join(str(folders[package]) for package in packages)
        return subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONPATH": path, **environment},
            capture_output=True,
            text=True,
            timeout=120,
        )

    return run


ASK = "from osport import Model; print(Model({!r}).generate('hi').text)"


def test_a_plugin_of_25_lines_is_found_through_its_entry_point(installed):
    assert len((PACKAGES / "good" / "osport_shout.py").read_text().splitlines()) <= 25
    assert installed(ASK.format("shout:x"), "good").stdout == "HI\n"


def test_the_sample_plugin_passes_the_conformance_kit(installed, tmp_path):
    test = tmp_path / "test_shout.py"
    test.write_text(
        "from osport.testing import BackendConformance\n"
        "class TestShout(BackendConformance):\n"
        "    reference = 'shout:x'\n"
    )
    run = installed(
        f"import pytest, sys; sys.exit(pytest.main(['-q', '-p', 'no:cacheprovider', {str(test)!r}]))", "good"
    )
    assert run.returncode == 0, run.stdout
    assert " passed" in run.stdout


def test_a_plugin_that_raises_at_import_leaves_the_others_alone(installed):
    run = installed(ASK.format("shout:x"), "good", "broken")
    assert run.stdout == "HI\n"
    run = installed(ASK.format("broken:x"), "good", "broken")
    assert "PluginLoadError" in run.stderr
    assert "osport-broken" in run.stderr
    assert "broken on purpose" in run.stderr


def test_a_broken_plugin_is_reported_once_by_package_name(installed):
    code = (
        "import warnings; warnings.simplefilter('always')\n"
        "from osport.plugin.registry import registry\n"
        "registry().scorers(); registry().scorers()\n"
        "print([i.name for i in registry().backends() if i.error])\n"
    )
    run = installed(code, "good", "broken")
    assert run.stderr.count("plugin osport-broken (broken) failed to load: RuntimeError") == 1
    assert run.stdout == "['broken']\n"


def test_a_plugin_that_leaves_the_interpreter_at_import_leaves_the_others_alone(installed):
    run = installed(ASK.format("shout:x"), "good", "leaves")
    assert run.stdout == "HI\n"
    run = installed(ASK.format("leaves:x"), "good", "leaves")
    assert "PluginLoadError" in run.stderr
    assert "osport-leaves" in run.stderr


def test_all_faults_at_once_are_each_reported_once_by_package_name_and_the_rest_works(installed):
    code = (
        "import warnings; warnings.simplefilter('always')\n"
        "from osport import Model\n"
        "from osport.plugin.registry import registry\n"
        "for _ in range(3):\n"
        "    registry().scorers(); registry().backends(); Model('shout:x').generate('hi')\n"
        "print({i.name: i.error for i in registry().backends()})\n"
    )
    run = installed(code, "good", "broken", "clash", "misspelt", "hooks", "leaves")
    assert run.returncode == 0, run.stderr
    for fault in (
        "plugin osport-broken (broken) failed to load: RuntimeError",
        "plugin osport-misspelt (misspelt) implements an unknown hook osport_call_finishd",
        "a hook of osport-hooks offers a backend 'echo', a name in use",
        "osport_scorers of osport-leaves (leaves) raised ZeroDivisionError",
    ):
        assert run.stderr.count(fault) == 1, (fault, run.stderr)
    errors = ast.literal_eval(run.stdout.splitlines()[-1])
    assert {name for name, error in errors.items() if error} == {"broken", "echo", "leaves"}
    assert "osport and osport-clash both offer" in errors["echo"]
    assert "osport-broken" in errors["broken"]
    assert "osport-leaves" in errors["leaves"]


def test_the_doctor_names_the_packages_at_fault(installed):
    code = "import sys; sys.argv = ['osport', 'doctor', 'shout:x', '--json']; from osport.cli import main; main()"
    run = installed(code, "good", "broken", "clash", "misspelt")
    findings = [row for row in json.loads(run.stdout)["findings"] if row["area"] == "plugin"]
    assert run.returncode == 1
    assert {row["level"] for row in findings} == {"problem"}
    told = " ".join(f"{row['where']} {row['what']}" for row in findings)
    for package in ("osport-broken", "osport-clash", "osport-misspelt"):
        assert package in told


def test_two_backends_under_one_name_are_a_conflict_that_names_both(installed):
    run = installed(ASK.format("echo:x"), "good", "clash")
    assert "PluginConflict" in run.stderr
    assert "osport and osport-clash" in run.stderr
    assert installed(ASK.format("shout:x"), "good", "clash").stdout == "HI\n"


def test_a_misspelt_hook_is_reported_and_the_rest_of_the_plugin_works(installed):
    code = "from osport.plugin.registry import registry; print(list(registry().scorers()))"
    run = installed(code, "misspelt")
    assert run.stdout == "['never']\n"
    assert "osport_call_finishd; did you mean osport_call_finished?" in run.stderr
    assert "osport-misspelt" in run.stderr


def test_hooks_add_backends_facts_scorers_and_observers(installed):
    code = (
        "from osport import Model\n"
        "from osport.plugin.registry import registry\n"
        "model = Model('whisper:x')\n"
        "print(model.generate('HI').text, model.facts['license'], list(registry().scorers()))\n"
    )
    run = installed(code, "hooks")
    assert run.stdout == "finished whisper:x hi\nhi mit ['always']\n"
    # A hook may not take the name of a backend that an entry point offers.
    assert "osport-hooks offers a backend 'echo', a name in use" in run.stderr


def test_plugins_can_be_shut_out(installed):
    for environment in (
        {"OSPORT_DISABLE_PLUGINS": "osport-clash"},
        {"OSPORT_PLUGINS": ""},
        {"OSPORT_PLUGINS": "osport-shout"},
    ):
        run = installed(ASK.format("echo:x"), "good", "clash", **environment)
        assert run.stdout == "hi\n", (environment, run.stderr)
    run = installed(ASK.format("shout:x"), "good", OSPORT_PLUGINS="")
    assert "BackendNotFound" in run.stderr


def test_strict_plugins_raise_at_once(installed):
    code = "from osport.plugin.registry import registry; registry().scorers()"
    run = installed(code, "broken", OSPORT_STRICT_PLUGINS="1")
    assert run.returncode == 1
    assert "PluginLoadError" in run.stderr


def test_the_command_lists_backends_with_what_is_wrong_with_them(installed):
    code = "import sys; sys.argv = ['osport', 'backends', '--json']; from osport.cli import main; main()"
    rows = {row["name"]: row for row in json.loads(installed(code, "good", "broken", "clash").stdout)}
    assert rows["shout"]["package"] == "osport-shout"
    assert rows["shout"]["error"] == ""
    assert "broken on purpose" in rows["broken"]["error"]
    assert "osport-clash" in rows["echo"]["error"]
