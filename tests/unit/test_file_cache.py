"""What is kept on disk is what was put there, or nothing; the folder stays within its bounds."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from osport.file_cache import FileCache

FULL = Path("/dev/full")  # every write to it fails as on a full disk


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "kept"


def cache(folder, entries=10, size=10_000):
    return FileCache(folder, entries=entries, size=size)


def test_what_was_put_comes_back_to_another_process_too(folder):
    data = os.urandom(500)
    assert cache(folder).get("a") is None
    cache(folder).put("a", data)
    assert cache(folder).get("a") == data
    code = "import sys; from pathlib import Path; from osport.file_cache import FileCache\n"
    code += "sys.stdout.buffer.write(FileCache(Path(sys.argv[1]), entries=9, size=9999).get('a'))"
    assert subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, check=True).stdout == data


@pytest.mark.parametrize(
    "damage",
    [
        lambda stored: b"",
        lambda stored: stored[:20],
        lambda stored: stored[:-1],
        lambda stored: stored + b"x",
        lambda stored: stored[:40] + bytes([stored[40] ^ 1]) + stored[41:],
        lambda stored: bytes(len(stored)),
    ],
    ids=["empty", "no digest", "cut", "longer", "one bit", "zeros"],
)
def test_a_damaged_file_is_none_and_goes(folder, damage):
    cache(folder).put("a", b"x" * 100)
    file = folder / "a"
    file.write_bytes(damage(file.read_bytes()))
    assert cache(folder).get("a") is None
    assert not file.exists()


def test_what_was_used_least_recently_goes_first(folder):
    kept = cache(folder, entries=3)
    for age, name in enumerate("abc"):
        kept.put(name, b"1")
        os.utime(folder / name, (1000 + age, 1000 + age))
    assert kept.get("a") == b"1"
    kept.put("d", b"1")
    assert sorted(file.name for file in folder.iterdir()) == ["a", "c", "d"]


def test_the_bytes_are_bounded_and_a_larger_entry_is_not_kept(folder):
    kept = cache(folder, entries=100, size=1000)
    for number in range(20):
        kept.put(str(number), b"x" * 200)
        os.utime(folder / str(number), (1000 + number, 1000 + number))
    assert sum(file.stat().st_size for file in folder.iterdir()) <= 1000
    assert kept.get("19") is not None
    kept.put("large", b"x" * 1000)
    assert kept.get("large") is None
    assert kept.get("19") is not None


def test_a_part_that_nobody_finished_goes_in_its_turn(folder):
    folder.mkdir()
    (folder / ".part-old").write_bytes(b"x" * 900)
    os.utime(folder / ".part-old", (1000, 1000))
    cache(folder, size=1000).put("a", b"x" * 200)
    assert [file.name for file in folder.iterdir()] == ["a"]


def test_where_nothing_can_be_kept_nothing_is_and_nobody_fails(tmp_path):
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        cache(folder).put("a", b"x")
        assert cache(folder).get("a") is None


@pytest.mark.skipif(not FULL.exists(), reason="no full disk here")
def test_a_full_disk_leaves_no_part_behind(folder, monkeypatch):
    kept = cache(folder)
    kept.put("before", b"x")
    monkeypatch.setattr(os, "fdopen", lambda handle, mode: FULL.open(mode, buffering=0))
    kept.put("a", b"x")
    monkeypatch.undo()
    assert [file.name for file in folder.iterdir()] == ["before"]
    assert kept.get("before") == b"x"


def test_two_processes_that_write_and_remove_at_once(folder):
    code = """
import sys
from pathlib import Path
from osport.file_cache import FileCache
kept = FileCache(Path(sys.argv[1]), entries=5, size=3000)
for number in range(200):
    name = str(number % 9)
    found = kept.get(name)
    assert found is None or found == name.encode() * 300, "torn"
    kept.put(name, name.encode() * 300)
"""
    both = [subprocess.Popen([sys.executable, "-c", code, str(folder)], stderr=subprocess.PIPE) for _ in range(2)]
    assert [process.communicate(timeout=60)[1] for process in both] == [b"", b""]
    assert sum(file.stat().st_size for file in folder.iterdir()) <= 3000 + 600
