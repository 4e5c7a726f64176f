"""The types that a user's own strict mypy sees."""

import subprocess
import sys
from pathlib import Path

USER = Path(__file__).with_name("user_code.py")


def mypy(path):
    command = [sys.executable, "-m", "mypy", "--strict", "--no-incremental", "--config-file", "", str(path)]
    return subprocess.run(command, capture_output=True, text=True)


def test_user_code_passes_strict_mypy():
    run = mypy(USER)
    assert run.returncode == 0, run.stdout


def test_a_mistake_in_user_code_is_found(tmp_path):
    wrong = tmp_path / "wrong.py"
    wrong.write_text(USER.read_text().replace("answer.text.upper()", "answer.txt.upper()"))
    run = mypy(wrong)
    assert "txt" in run.stdout
