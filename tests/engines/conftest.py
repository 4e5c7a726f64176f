"""The real model that the engine tests run on, and one embedded server for all of them."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from osport import store
from osport.backends.llama_server import LlamaServerBackend


@pytest.fixture(scope="session")
def model_path() -> Path:
    """``OSPORT_TEST_MODEL``, or the pulled catalogue model; without either the tests fail with the pull command."""
    named = os.environ.get("OSPORT_TEST_MODEL")
    return Path(named) if named else store.model_path("smollm2-135m")


@pytest.fixture(scope="session")
def server(model_path: Path) -> Iterator[LlamaServerBackend]:
    with LlamaServerBackend(str(model_path), context=1024, threads=1, slots=2) as backend:
        yield backend


@pytest.fixture(scope="session")
def hf_model(model_path: Path) -> Path:
    """The same model as a Hugging Face folder: ``OSPORT_TEST_HF_MODEL``, or made once and then kept."""
    if given := os.environ.get("OSPORT_TEST_HF_MODEL"):
        return Path(given)
    folder = store.cache_dir() / "tests" / f"{model_path.stem}-hf"
    if not folder.is_dir():
        needed = ("torch", "transformers", "gguf", "accelerate")
        if missing := [name for name in needed if find_spec(name) is None]:
            pytest.skip(f"no Hugging Face weights: {missing[0]} is not installed, OSPORT_TEST_HF_MODEL names none")
        folder.parent.mkdir(parents=True, exist_ok=True)
        with (folder.parent / "hf.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not folder.is_dir():
                script = Path(__file__).with_name("hf_weights.py")
                subprocess.run([sys.executable, str(script), str(model_path), str(folder)], check=True, timeout=600)
    return folder
