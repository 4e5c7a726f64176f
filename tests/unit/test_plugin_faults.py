"""What is wrong with a stranger's package stays with that package, and is told once, by the package's name.

Each package is a module and its metadata in a folder of its own, as pip would leave them.
"""

import json
import os
import subprocess
import sys

import pytest

BACKENDS, PLUGINS = "osport.backends", "osport.plugins"
HOOKS = (
    "from osport.plugin import *\nclass B(Backend):\n    def generate(self, request): return Completion('b', 'stop')\n"
)
WELL = "well"  # the neighbour that must go on working

FAULTS = {
    # package: entry-point group, module, what must be told of it
    "panics": (PLUGINS, "class Panic(BaseException): pass\nraise Panic('compiled code')", "Panic: compiled code"),
    "leaves": (PLUGINS, "raise SystemExit('no GPU')", "SystemExit: no GPU"),
    "mute": (PLUGINS, "class Mute(Exception):\n    def __str__(self): return 1 / 0\nraise Mute", "Mute"),
    "typo": (PLUGINS, "def f(:", "SyntaxError"),
    "needs": (PLUGINS, "import no_such_module_anywhere", "No module named 'no_such_module_anywhere'"),
    "arguments": (PLUGINS, HOOKS + "@hookimpl\ndef osport_scorers(of_what): return []", "of_what"),
    "later": (PLUGINS, HOOKS + "@hookimpl\nasync def osport_call_finished(record): pass", "plain functions"),
    "around": (PLUGINS, HOOKS + "@hookimpl(wrapper=True)\ndef osport_scorers(): return (yield)", "plain functions"),
    "nothing": (PLUGINS, HOOKS + "@hookimpl\ndef osport_backends(): return None", "'NoneType' object is not iterable"),
    "words": (PLUGINS, HOOKS + "@hookimpl\ndef osport_backends(): return ['mine', 'mine']", "a str, not a BackendSpec"),
    "midway": (
        PLUGINS,
        HOOKS + "@hookimpl\ndef osport_backends():\n    yield BackendSpec('half', B)\n    raise RuntimeError('midway')",
        "RuntimeError: midway",
    ),
    "quits": (PLUGINS, HOOKS + "@hookimpl\ndef osport_backends(): raise SystemExit(3)", "SystemExit: 3"),
    "uncallable": (
        PLUGINS,
        HOOKS + "@hookimpl\ndef osport_backends(): return [BackendSpec('stiff', 'B')]",
        "backend 'stiff': the factory 'B' cannot be called",
    ),
    "dashed": (
        PLUGINS,
        HOOKS + "@hookimpl\ndef osport_backends(): return [BackendSpec('my-engine', B)]",
        "backend name 'my-engine'",
    ),
    "judges": (PLUGINS, HOOKS + "@hookimpl\ndef osport_scorers(): raise ZeroDivisionError", "ZeroDivisionError"),
    "knows": (PLUGINS, HOOKS + "@hookimpl\ndef osport_model_facts(ref, known): raise KeyError('facts')", "'facts'"),
    "guesses": (
        PLUGINS,
        HOOKS + "@hookimpl\ndef osport_model_facts(ref): return {'license': 'mit'}",
        "not a ModelFacts",
    ),
    "opsort": (
        PLUGINS,
        HOOKS + "@hookimpl\ndef opsort_backends(): return []",
        "an unknown hook opsort_backends; did you mean osport_backends?",
    ),
    "unmarked": (PLUGINS, HOOKS + "def osport_backends(): return []", "defines osport_backends without @hookimpl"),
    "taker": (
        PLUGINS,
        HOOKS + "@hookimpl\ndef osport_backends(): return [BackendSpec('echo', B)]",
        "a backend 'echo', a name in use by osport",
    ),
    "garbled": (None, "", "cannot be read"),
    # What an entry point of a backend leads to is told where the backends are listed.
    "explodes": (BACKENDS, "raise RuntimeError('at import')", "RuntimeError: at import"),
    "refuses": (BACKENDS, "from osport.errors import UsageError\nraise UsageError('no')", "UsageError: no"),
    "absent": (BACKENDS, "", "has no attribute 'B'"),
    "number": (BACKENDS, "B = 42", "neither a Backend class nor a BackendSpec"),
    "hy-phen": (BACKENDS, HOOKS, "backend name 'hy-phen'"),
    "unnamed_features": (BACKENDS, HOOKS + "B.features = None", "features=None"),
    "stiff_spec": (BACKENDS, HOOKS + "B = BackendSpec('stiff_spec', 3)", "the factory 3 cannot be called"),
}

ASK = """
import json, warnings
warnings.simplefilter("always")
from osport import Model
from osport.errors import UnsupportedFeature
from osport.plugin.registry import registry
for _ in range(3):
    assert Model("well:x").generate("hi").text == "b"
    assert Model("plain:x").generate("hi").text == "b"
    assert Model("echo:").facts["license"] == "guessed"
    assert list(registry().scorers()) == ["fair"]
    try:
        Model("well:x").generate("hi", thinking=True)
    except UnsupportedFeature:
        pass
print(json.dumps({info.name: [info.package, info.error] for info in registry().backends()}))
"""


@pytest.fixture
def installed(tmp_path):
    """A function that writes packages, and one that runs Python beside them."""

    def package(name, group, module, entry=None, value=None):
        folder = tmp_path / name
        info = folder / f"{name}-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        code = name.replace("-", "_") + "_module"
        (folder / f"{code}.py").write_text(module)
        value = value or (f"{code}:B" if group == BACKENDS else code)
        line = "no entry point at all" if group is None else f"{entry or name} = {value}"
        (info / "entry_points.txt").write_text(f"[{group or BACKENDS}]\n{line}\n")

    def run(code, **environment):
        path = os.pathsep.join(str(folder) for folder in sorted(tmp_path.iterdir()))
        return subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONPATH": path, **environment},
            capture_output=True,
            text=True,
            timeout=120,
        )

    return package, run


def neighbours(package):
    """Two packages without fault; the name of the second sorts first, and so its hooks are asked last."""
    package(WELL, BACKENDS, HOOKS)
    package(
        "aid",
        PLUGINS,
        HOOKS + "@hookimpl\ndef osport_backends(): return [BackendSpec('plain', B, package='something else')]\n"
        "@hookimpl\ndef osport_scorers(): return [ScorerSpec('fair', lambda expected, answer: 1.0)]\n"
        "@hookimpl\ndef osport_model_facts(known): return ModelFacts.of('aid', license='guessed')\n",
    )


def test_every_fault_is_told_once_by_package_name_and_the_neighbours_work(installed):
    package, run = installed
    neighbours(package)
    for name, (group, module, _) in FAULTS.items():
        package(name, group, module)
    done = run(ASK)
    assert done.returncode == 0, done.stderr
    backends = json.loads(done.stdout.splitlines()[-1])
    warned = [line for line in done.stderr.splitlines() if "RuntimeWarning" in line]
    for name, (group, _, told) in FAULTS.items():
        if group == BACKENDS:
            owner, error = backends[name]
            assert owner == name
            assert name in error
            assert told in error
            assert not [line for line in warned if f" {name} " in line]
        else:
            assert len([line for line in warned if f" {name} " in line]) == 1, (name, done.stderr)
            assert told in done.stderr
    assert backends["half"] == ["midway", ""]  # what a hook gave before it failed
    assert backends["plain"] == ["aid", ""]  # not what the spec says of itself


@pytest.mark.parametrize("name", ["panics", "words", "knows", "opsort", "garbled"])
def test_strict_plugins_raise_and_go_on_raising(installed, name):
    package, run = installed
    package(name, *FAULTS[name][:2])
    code = (
        "from osport.errors import PluginError\n"
        "from osport.plugin.registry import registry\n"
        "from osport import Model\n"
        "for _ in range(2):\n"
        "    try:\n"
        "        registry().scorers(); Model('echo:').facts\n"
        "    except PluginError as error: print(str(error).splitlines()[0])\n"
    )
    done = run(code, OSPORT_STRICT_PLUGINS="1")
    assert done.returncode == 0, done.stderr
    told = done.stdout.splitlines()
    assert len(told) == 2
    assert all(name in line for line in told)


def test_a_name_that_two_packages_offer_is_neithers_whoever_of_them_is_broken(installed):
    package, run = installed
    neighbours(package)
    package("one", BACKENDS, HOOKS, entry="same")
    package("two", BACKENDS, "raise RuntimeError('broken as well')", entry="same")
    for name in ("three", "four"):
        hooks = "@hookimpl\ndef osport_backends(): return [BackendSpec('hooked', B)]\n"
        hooks += "@hookimpl\ndef osport_scorers(): return [ScorerSpec('strange', lambda expected, answer: 0.0)]\n"
        package(name, PLUGINS, HOOKS + hooks)
    code = (
        "from osport.errors import PluginConflict\n"
        "for reference in ('same:x', 'hooked:x'):\n"
        "    try: Model(reference)\n"
        "    except PluginConflict as error: print(error)\n"
    )
    done = run(ASK + code)
    assert done.returncode == 0, done.stderr
    assert "one and two both offer a backend 'same'" in done.stdout
    assert "four and three both offer a backend 'hooked'" in done.stdout
    assert done.stderr.count("four and three both offer a backend 'hooked'") == 1
    assert done.stderr.count("four and three both offer a scorer 'strange'") == 1


def test_a_name_that_a_hook_offers_cannot_be_registered(installed):
    package, run = installed
    neighbours(package)
    code = ASK + "from osport.plugin import *\nregister(BackendSpec('plain', Backend))"
    assert "PluginConflict: backend 'plain' is already offered by aid" in run(code).stderr


@pytest.mark.parametrize(
    ("raised", "leaves"), [("SystemExit(3)", ""), ("ZeroDivisionError", ""), ("KeyboardInterrupt", "KeyboardInterrupt")]
)
def test_what_an_observer_raises_is_logged_but_for_ctrl_c(installed, raised, leaves):
    package, run = installed
    package("listens", PLUGINS, HOOKS + f"@hookimpl\ndef osport_call_finished(record): raise {raised}")
    done = run("from osport import Model\nprint(Model('echo:').generate('hi').text)")
    assert done.stdout == ("" if leaves else "hi\n")
    assert ("observer listens (listens) failed" in done.stderr) is not bool(leaves)
    assert leaves in done.stderr
