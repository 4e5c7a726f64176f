"""Every Python block of the README and of the documentation is executed, page by page."""

import os
import runpy
import shutil
from pathlib import Path

import pytest
from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser

pytest_plugins = ("pytester",)

ROOT = Path(__file__).parent
FEW_ITEMS = 20


@pytest.fixture(scope="module")
def _where_the_readme_speaks(tmp_path_factory):
    """A copy of the examples, with a golden set that is a tenth as large, so that the whole port runs."""
    root = tmp_path_factory.mktemp("repository")
    example = root / "examples" / "review_sentiment"
    shutil.copytree(ROOT / "examples" / "review_sentiment", example, ignore=shutil.ignore_patterns("out"))
    runpy.run_path(str(example / "build_golden.py"))["build"](example / "out" / "data", FEW_ITEMS)
    before = Path.cwd()
    os.chdir(root)
    yield
    os.chdir(before)


def _sybil(pattern, *fixtures):
    return Sybil(parsers=[PythonCodeBlockParser()], patterns=[pattern], fixtures=list(fixtures))


pytest_collect_file = (_sybil("README.md", "_where_the_readme_speaks") + _sybil("docs/*.md")).pytest()
