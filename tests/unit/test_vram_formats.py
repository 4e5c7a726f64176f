"""Headers of configs and safetensors checkpoints, over files and over HTTP ranges."""

import http.server
import json
import struct
import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from osport.errors import FormatError, StorageError, UsageError
from osport.formats.hf_config import HfConfig
from osport.formats.remote import fetch_gguf, fetch_safetensors
from osport.formats.safetensors import Checkpoint, SafetensorsHeader, parse_header
from osport.vram import VramBudget


def safetensors(tensors):
    table, at = {}, 0
    for name, (dtype, shape, size) in tensors.items():
        table[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + size]}
        at += size
    raw = json.dumps({"__metadata__": {"format": "pt"}, **table}).encode()
    return struct.pack("<Q", len(raw)) + raw + bytes(at)


TINY = {"model_type": "qwen3", "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "head_dim": 32, "intermediate_size": 128, "vocab_size": 512,
        "max_position_embeddings": 2048, "tie_word_embeddings": False}  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(TINY))
    return tmp_path


def test_a_checkpoint_is_summed_over_its_shards(folder):
    (folder / "model-1.safetensors").write_bytes(safetensors({"a": ("BF16", [4, 8], 64), "b": ("F32", [3], 12)}))
    (folder / "model-2.safetensors").write_bytes(safetensors({"c": ("I8", [10], 10)}))
    checkpoint = Checkpoint.of_folder(folder)
    assert checkpoint.size == 86
    assert checkpoint.tensors["a"].elements == 32


def test_the_index_alone_gives_the_size(folder):
    index = {"metadata": {"total_size": 12345}, "weight_map": {"a": "model-00001-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert Checkpoint.of_folder(folder).size == 12345


def test_a_missing_shard_is_named(folder):
    index = {"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "one.safetensors").write_bytes(safetensors({"a": ("I8", [1], 1)}))
    with pytest.raises(FormatError, match=r"first two\.safetensors"):
        Checkpoint.of_folder(folder)


def test_a_shard_may_not_leave_the_folder(folder):
    index = {"weight_map": {"a": "../secret.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(FormatError, match="leaves the folder"):
        Checkpoint.of_folder(folder)


def test_weights_are_exact_with_a_checkpoint(folder):
    (folder / "model.safetensors").write_bytes(safetensors({"a": ("I8", [99_999], 99_999)}))
    budget = VramBudget.from_hf(folder, context=256, runtime="vllm")
    assert budget.file_weights.is_exact
    assert budget.file_weights.likely == 99_999


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"dtype": "BF16", "shape": [4], "data_offsets": [0, 9]}, "claims 9 bytes"),
        ({"dtype": "BF16", "shape": [4], "data_offsets": [8, 0]}, "does not have"),
        ({"dtype": "BF16", "shape": [4], "data_offsets": [0, 10**9]}, "does not have"),
        ({"dtype": "BF16", "shape": [-4], "data_offsets": [0, 8]}, "does not have"),
        ({"dtype": "BF16", "shape": 4}, "not a tensor's"),
        ({"dtype": ["BF16"], "shape": [4], "data_offsets": [0, 8]}, "not a tensor's"),
        (7, "not a tensor's"),
    ],
)
def test_safetensors_entries_that_lie_are_refused(entry, message):
    with pytest.raises(FormatError, match=message):
        parse_header(json.dumps({"t": entry}).encode(), 100, "file")


@pytest.mark.parametrize(
    "raw", [b"", b"\x00" * 7, struct.pack("<Q", 2**63), struct.pack("<Q", 5) + b"[1,2]", b"{" * 500]
)
def test_safetensors_files_that_lie_are_refused(tmp_path, raw):
    path = tmp_path / "m.safetensors"
    path.write_bytes(raw)
    with pytest.raises(FormatError):
        SafetensorsHeader.read(path)


@settings(max_examples=200, deadline=1000)
@given(st.binary(max_size=300))
def test_random_safetensors_headers_raise_format_errors_and_nothing_else(raw):
    try:
        parse_header(raw, 1000, "file")
    except FormatError:
        return
    assert json.loads(raw) is not None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)
KEYS = [*TINY, "layer_types", "text_config", "quantization_config", "num_experts", "sliding_window", "kv_lora_rank",
        "hybrid_override_pattern", "linear_attn_config", "num_kv_shared_layers", "full_attention_interval"]  # fmt: skip


@settings(max_examples=400, deadline=2000)
@given(
    st.sampled_from(
        ["llama", "qwen3_next", "gemma4", "deepseek_v3", "nemotron_h", "jamba", "lfm2", "kimi_linear", "llama4"]
    ),
    st.dictionaries(st.sampled_from(KEYS), JSON, max_size=4),
)
def test_damaged_configs_raise_errors_of_the_tree_and_nothing_else(tmp_path_factory, kind, changes):
    path = tmp_path_factory.mktemp("config") / "config.json"
    path.write_text(json.dumps({**TINY, "model_type": kind, **changes}))
    try:
        budget = VramBudget.from_hf(path, context=256, runtime="llama.cpp")
    except (FormatError, UsageError):
        return
    assert budget.missing or budget.total.likely > 0


def test_nested_text_configs_and_towers(tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"model_type": "x_vl", "text_config": TINY, "vision_config": {"depth": 3}}))
    config = HfConfig.read(path)
    assert config.model_type == "qwen3"
    assert config.towers == ("vision_config",)
    assert VramBudget.from_hf(path, context=256).architecture.towers == ("vision_config",)


@pytest.mark.parametrize(
    ("quantization", "method", "bits"),
    [
        ({"quant_method": "awq", "bits": 4, "group_size": 64}, "awq", 4),
        ({"quant_method": "fp8", "weight_block_size": [128, 128]}, "fp8", 8),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "bnb-nf4", 4),
        ({"quant_method": "modelopt", "quant_algo": "NVFP4"}, "nvfp4", 4),
        ({"quant_method": "modelopt", "quant_algo": "MIXED_PRECISION"}, "mixed", 0),
        ({"quant_method": "compressed-tensors", "config_groups": {"g": {"weights": {"num_bits": 4, "group_size": 32}}}},
         "gptq", 4),
    ],
)  # fmt: skip
def test_quantisation_configs(quantization, method, bits):
    found = HfConfig.of({**TINY, "quantization_config": quantization}).quantization
    assert (found.method, found.bits) == (method, bits)


def test_a_quantisation_file_beside_the_config_is_read(folder):
    exported = {"quantization": {"quant_algo": "FP8", "exclude_modules": ["lm_head"]}}
    (folder / "hf_quant_config.json").write_text(json.dumps(exported))
    assert VramBudget.from_hf(folder, context=256).quantization == "fp8"


def test_a_mixed_quantisation_without_headers_is_unknown(folder):
    config = {**TINY, "quantization_config": {"quant_method": "modelopt", "quant_algo": "MIXED_PRECISION"}}
    (folder / "config.json").write_text(json.dumps(config))
    budget = VramBudget.from_hf(folder, context=256)
    assert budget.weights is None
    assert "headers" in budget.missing[0]
    assert budget.fits("RTX 4090").verdict == "unknown"


def test_configs_that_are_not_configs(tmp_path):
    path = tmp_path / "config.json"
    for raw, kind in ((b"[1]", FormatError), (b"{", FormatError), (b"\xff\xfe", FormatError), (b"{}", FormatError)):
        path.write_bytes(raw)
        with pytest.raises(kind):
            VramBudget.from_hf(path, context=256)
    with pytest.raises(StorageError):
        VramBudget.from_hf(tmp_path / "none.json", context=256)


class RangeHandler(http.server.BaseHTTPRequestHandler):
    """Serves one blob; ``ranges`` off is a server that ignores the header."""

    blob = b""
    ranges = True
    served = 0

    def do_GET(self):
        stop = int(self.headers["Range"].rsplit("-", 1)[1]) + 1
        part = type(self).blob[:stop] if self.ranges else type(self).blob
        type(self).served += len(part)
        self.send_response(206 if self.ranges else 200)
        if self.ranges:
            self.send_header("Content-Range", f"bytes 0-{len(part) - 1}/{len(type(self).blob)}")
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        try:
            self.wfile.write(part)
        except (BrokenPipeError, ConnectionResetError):
            return

    def log_message(self, *args):
        """Keep the test's output clean."""


@pytest.fixture
def serve():
    servers = []

    def start(blob, ranges=True):
        handler = type("Handler", (RangeHandler,), {"blob": blob, "ranges": ranges, "served": 0})
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_address[1]}/m", handler

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def big_gguf():
    """A header of 3 MiB (a long vocabulary), and 20 MiB of weights behind it."""

    def text(value):
        return struct.pack("<Q", len(value)) + value

    words = b"".join(text(b"word") for _ in range(260_000))
    keys = text(b"general.architecture") + struct.pack("<I", 8) + text(b"llama")
    keys += text(b"tokenizer.ggml.tokens") + struct.pack("<IIQ", 9, 8, 260_000) + words
    table = text(b"token_embd.weight") + struct.pack("<IQQIQ", 2, 1024, 10240, 1, 0)
    head = b"GGUF" + struct.pack("<IQQ", 3, 1, 2) + keys + table
    return head + bytes(-len(head) % 32) + bytes(1024 * 10240 * 2)


@pytest.mark.parametrize("ranges", [True, False])
def test_a_gguf_header_is_fetched_without_its_weights(serve, ranges):
    blob = big_gguf()
    url, handler = serve(blob, ranges)
    header = fetch_gguf(url)
    assert header.file_size == len(blob)
    assert header.tensors["token_embd.weight"].size == 1024 * 10240 * 2
    assert len(header.metadata["tokenizer.ggml.tokens"]) == 260_000
    if ranges:
        assert handler.served < len(blob) / 2


def test_a_budget_is_made_from_a_url(serve, tmp_path):
    keys = {"block_count": 2, "context_length": 2048, "embedding_length": 64, "attention.head_count": 4}
    blob = gguf_with({"arch": "llama", "keys": keys})
    url, _ = serve(blob)
    (tmp_path / "m.gguf").write_bytes(blob)
    remote, local = VramBudget.from_gguf(url, context=256), VramBudget.from_gguf(tmp_path / "m.gguf", context=256)
    assert remote.total == local.total
    assert remote.kv_cache.likely == 2 * 256 * 2 * 64 * 2


def test_a_safetensors_header_is_fetched(serve):
    url, _ = serve(safetensors({"a": ("BF16", [4, 8], 64)}))
    assert fetch_safetensors(url).tensors["a"].size == 64


def test_what_is_no_model_is_refused_over_http(serve):
    url, _ = serve(b"<html>not found</html>" * 100)
    with pytest.raises(FormatError):
        fetch_gguf(url)
    with pytest.raises(FormatError):
        fetch_safetensors(url)
    with pytest.raises(StorageError):
        fetch_gguf("http://127.0.0.1:9/none")
    with pytest.raises(UsageError):
        fetch_gguf("ftp://127.0.0.1/none")


def test_an_endless_header_is_given_up(serve):
    keys = struct.pack("<Q", 1) + b"k" + struct.pack("<IIQ", 9, 0, 2**40)
    url, _ = serve(b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + keys + bytes(2**20))
    began = time.monotonic()
    with pytest.raises(FormatError):
        fetch_gguf(url)
    assert time.monotonic() - began < 20


def gguf_with(metadata):
    """A header with these keys, integers as u32, lists as i32 arrays, and one tensor."""

    def text(value):
        return struct.pack("<Q", len(value.encode())) + value.encode()

    keys = [text("general.architecture") + struct.pack("<I", 8) + text(metadata["arch"])]
    for name, value in metadata["keys"].items():
        key = text(f"{metadata['arch']}.{name}")
        if isinstance(value, list):
            keys.append(key + struct.pack(f"<IIQ{len(value)}i", 9, 5, len(value), *value))
        else:
            keys.append(key + struct.pack("<IQ", 10, value))
    table = text("token_embd.weight") + struct.pack("<IQQIQ", 2, 64, 512, 1, 0)
    head = b"GGUF" + struct.pack("<IQQ", 3, 1, len(keys)) + b"".join(keys) + table
    return head + bytes(-len(head) % 32) + bytes(64 * 512 * 2)


GGUF_KEYS = [
    "block_count", "context_length", "embedding_length", "feed_forward_length", "attention.head_count",
    "attention.head_count_kv", "attention.key_length", "attention.value_length", "attention.sliding_window",
    "attention.sliding_window_pattern", "attention.kv_lora_rank", "attention.key_length_mla", "ssm.conv_kernel",
    "ssm.inner_size", "ssm.state_size", "ssm.group_count", "full_attention_interval", "expert_count",
    "expert_used_count", "nextn_predict_layers", "attention.shared_kv_layers", "rope.dimension_count",
]  # fmt: skip


@settings(max_examples=400, deadline=2000)
@given(
    st.sampled_from(
        ["llama", "gemma3", "gemma4", "deepseek2", "glm-dsa", "qwen35", "jamba", "nemotron_h", "mamba", "lfm2", "x"]
    ),
    st.dictionaries(
        st.sampled_from(GGUF_KEYS),
        st.integers(0, 2**63) | st.integers(0, 300) | st.lists(st.integers(-3, 300), max_size=5),
        max_size=8,
    ),
)
def test_damaged_gguf_metadata_raises_errors_of_the_tree_and_nothing_else(tmp_path_factory, arch, changes):
    path = tmp_path_factory.mktemp("gguf") / "m.gguf"
    base = {"block_count": 4, "context_length": 2048, "embedding_length": 64, "attention.head_count": 4}
    path.write_bytes(gguf_with({"arch": arch, "keys": {**base, **changes}}))
    try:
        budget = VramBudget.from_gguf(path, context=256)
        made = budget.total
    except (FormatError, UsageError):
        return
    assert budget.missing or made.likely > 0
