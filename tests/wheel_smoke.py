"""Run with the installed wheel, outside the source tree: is everything in it?"""

import json
import subprocess
import sys
from pathlib import Path

import osport
from osport import ConstrainedOutput, Model, pull_model

assert "site-packages" in osport.__file__, osport.__file__
assert (Path(osport.__file__).parent / "py.typed").exists()

with Model("echo:") as model:
    assert model.generate("hello").text == "hello"

pull_model("smollm2-135m")
form = ConstrainedOutput.choice(["pos", "neg"])
with Model("llama_server:smollm2-135m", context=512) as model:
    answer = model.generate("Is this praise? 'The picture is great.'", output=form)
assert answer.parsed in ("pos", "neg"), answer

command = [str(Path(sys.executable).parent / "osport"), "backends", "--json"]
rows = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
assert {"echo", "llama_server", "llama_cpp"} <= {row["name"] for row in rows}
print("the wheel works:", answer.parsed, answer.enforcement)
