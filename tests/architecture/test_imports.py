"""What an import costs, and who imports whom."""

import json
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import osport

HEAVY = [
    "anthropic",
    "genai_prices",
    "jinja2",
    "llama_cpp",
    "llguidance",
    "matplotlib",
    "numpy",
    "openai",
    "outlines",
    "pandas",
    "ray",
    "scipy",
    "statsmodels",
    "torch",
    "transformers",
    "vllm",
    "xgrammar",
    "xllamacpp",
]
MODULES = sorted(
    info.name
    for info in pkgutil.walk_packages(osport.__path__, "osport.")
    # Those are made for an environment that has pytest, or run as a program.
    if not info.name.startswith("osport.testing") and not info.name.endswith("_child")
)


def fresh(code):
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    return run.stdout


def test_import_osport_loads_no_plugin_and_no_package_but_its_own():
    loaded = json.loads(fresh("import sys, json; import osport; print(json.dumps(sorted(sys.modules)))"))
    packages = {name.partition(".")[0] for name in loaded} - set(sys.stdlib_module_names)
    ours = {name for name in loaded if name.startswith("osport")}
    assert ours == {"osport"}
    assert not packages & {*HEAVY, "attr", "attrs", "pluggy", "jsonschema", "click", "tqdm", "httpx"}


@pytest.mark.parametrize("module", MODULES)
def test_every_module_imports_without_a_heavy_package(module):
    block = f"import sys; sys.modules.update(dict.fromkeys({HEAVY!r}))"
    fresh(f"{block}; import importlib; importlib.import_module({module!r})")


def test_the_layers_hold():
    root = Path(__file__).parents[2]
    lint = Path(sys.executable).parent / "lint-imports"
    run = subprocess.run([lint, "--no-cache"], cwd=root, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout
    assert "0 broken" in run.stdout
