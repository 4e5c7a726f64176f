"""The terms one by one, against figures that runtimes print for models of these shapes."""

import json
import os
from pathlib import Path

import pytest

from osport.errors import UsageError
from osport.formats.hf_config import HfConfig
from osport.vram import VramBudget
from osport.vram.catalogue import catalogue_names, named_architecture
from osport.vram.compute import compute_buffer
from osport.vram.config_reader import architecture_of_config
from osport.vram.quant_mix import named_quantization
from osport.vram.runtimes import Runtime
from osport.vram.settings import Settings

GIB, MIB = 2**30, 2**20


def kv_mib(model, **settings):
    settings = {"rope_scaling": True, "runtime": "llama.cpp", **settings}
    return VramBudget.for_model(model, quantization="Q4_K_M", **settings).kv_cache.likely / MIB


def compute_mib(model, **settings):
    settings = {"rope_scaling": True, "runtime": "llama.cpp", **settings}
    return VramBudget.for_model(model, quantization="Q4_K_M", **settings).compute.likely / MIB


@pytest.mark.parametrize(
    ("model", "settings", "mib"),
    [
        ("Qwen3-32B", {"context": 8192}, 2048.0),
        ("Qwen3-235B-A22B", {"context": 32768, "kv_type": "q8_0"}, 3196.0),
        ("Llama-3.1-8B", {"context": 1024, "kv_type": ("iq4_nl", "f16")}, 82.0),
        ("DeepSeek-R1", {"context": 32768}, 2196.0),
        ("DeepSeek-R1", {"context": 32768, "kv_type": "q8_0"}, 1166.625),
        ("DeepSeek-V2-Lite", {"context": 512, "latent_cache": False}, 135.0),
        ("Gemma-3-27B", {"context": 32768, "runtime": "ik_llama.cpp"}, 15872.0),
        ("Gemma-4-12B", {"context": 262144, "kv_type": "q8_0"}, 2176 + 255),
        ("Qwen3.5-27B", {"context": 8192}, 512.0),
    ],
)
def test_llama_cpp_kv_cache_equals_what_is_printed(model, settings, mib):
    assert kv_mib(model, **settings) == pytest.approx(mib, rel=1e-4)


def test_windowed_layers_keep_their_window_and_one_micro_batch():
    def windowed(**settings):
        rows = VramBudget.for_model("Gemma-3-27B", quantization="Q4_K_M", runtime="llama.cpp", **settings).ledger()
        return sum(row.bytes.likely for row in rows if row.term == "KV cache, windowed") / (52 * 2 * 16 * 128 * 2)

    assert windowed(context=32768) == 1024 + 512
    assert windowed(context=32768, ubatch=1000) == 2048
    assert windowed(context=32768, sequences=4) == 4 * 1536
    assert windowed(context=32768, sequences=4, unified=True) == 4 * 1024 + 512
    assert windowed(context=32768, swa_full=True) == 0


def test_bindings_inherit_the_full_windowed_cache():
    small = kv_mib("Gemma-3-27B", context=32768)
    assert kv_mib("Gemma-3-27B", context=32768, runtime="llama-cpp-python") > 4 * small


def test_recurrent_state_grows_with_sequences_and_rollbacks_not_with_context():
    def state(**settings):
        return (
            VramBudget.for_model("Qwen3.5-27B", quantization="Q4_K_M", runtime="llama.cpp", **settings).state.likely
            / MIB
        )

    assert state(context=4096) == pytest.approx(149.62, abs=0.01)
    assert state(context=65536) == state(context=4096)
    assert state(context=4096, sequences=4) == pytest.approx(598.5, abs=0.05)
    assert state(context=4096, rollback_states=2) == pytest.approx(448.88, abs=0.05)


def test_sparse_attention_adds_the_indexer_keys():
    rows = VramBudget.for_model("DeepSeek-V3.2", quantization="Q8_0", context=4096, runtime="llama.cpp").ledger()
    terms = {row.term: row.bytes.likely for row in rows}
    assert terms["KV cache, latent"] == 61 * 576 * 2 * 4096
    assert terms["KV cache, indexer"] == 61 * 128 * 2 * 4096


def test_shared_layers_own_no_cells():
    attention = named_architecture("Gemma-4-E4B").attention_layers
    assert (len(attention), sum(layer.window is None for layer in attention)) == (24, 4)


def test_ollama_multiplies_the_context_by_its_parallel_slots():
    one = kv_mib("Llama-3.1-8B", context=4096, runtime="ollama")
    assert kv_mib("Llama-3.1-8B", context=4096, runtime="ollama", sequences=4) == 4 * one
    shared = kv_mib("Llama-3.1-8B", context=4096, runtime="llama-server", sequences=4)
    assert shared == one


def test_without_flash_attention_v_takes_rows_of_the_widest_layer():
    on = kv_mib("Gemma-4-26B-A4B", context=8192)
    off = kv_mib("Gemma-4-26B-A4B", context=8192, flash_attention=False)
    assert off > on


def test_a_quantised_cache_needs_divisible_rows():
    config = {"model_type": "llama", "hidden_size": 96, "num_hidden_layers": 2, "num_attention_heads": 6,
              "num_key_value_heads": 1, "intermediate_size": 64, "vocab_size": 100,
              "max_position_embeddings": 1024}  # fmt: skip
    architecture = architecture_of_config(HfConfig.of(config))
    settings = Settings.of({"context": 256, "kv_type": "q8_0"})
    from osport.vram.kv_cache import layer_memory

    with pytest.raises(UsageError, match="divisible by 32"):
        layer_memory(architecture.layers[0], architecture, 256, settings)


@pytest.mark.parametrize(
    ("model", "settings", "mib"),
    [
        ("Qwen3-32B", {"context": 40960, "flash_attention": False, "runtime": "ik_llama.cpp"}, 5252.0),
        ("GLM-Z1-Rumination-32B", {"context": 8192, "flash_attention": False, "runtime": "ik_llama.cpp"}, 832.0),
        ("Qwen3-235B-A22B", {"context": 32768, "runtime": "ik_llama.cpp"}, 312.75),
        ("Qwen3-32B", {"context": 8192, "ubatch": 1024, "runtime": "ik_llama.cpp"}, 633.5),
        ("Qwen3.5-2B", {"context": 262144, "kv_type": "q8_0"}, 796.0),
        ("Qwen3.5-9B", {"context": 262144, "kv_type": "q8_0"}, 1336.0),
        ("Gemma-4-31B", {"context": 262144, "kv_type": "q8_0"}, 2392.0),
    ],
)
def test_compute_buffers_come_close_to_what_is_printed(model, settings, mib):
    assert compute_mib(model, **settings) == pytest.approx(mib, rel=0.005)


def test_a_server_that_caps_its_output_rows_needs_no_logits():
    assert compute_mib("Gemma-3-4B", context=4096, runtime="llama-server") < 0.4 * compute_mib(
        "Gemma-3-4B", context=4096
    )
    old = compute_mib("Gemma-3-4B", context=4096, runtime="llama-server@2025")
    assert old == compute_mib("Gemma-3-4B", context=4096)


def test_the_scratch_of_a_quantised_cache_is_cuda_only():
    settings = Settings.of({"context": 131072, "kv_type": "q8_0"})
    model = named_architecture("Llama-3.1-8B")
    cuda = compute_buffer(model, 131072, settings).size.likely
    metal = compute_buffer(model, 131072, settings, cuda=False).size.likely
    assert cuda - metal > 400 * MIB


POOLS = [
    ("Qwen3.5-35B-A3B", 5.98, 262144, {"kv_type": "fp8", "rollback_states": 2}, 1, 567978),
    ("Nemotron-3-Nano-30B-A3B", 7.37, 262144, {"runtime": "vllm@0.12"}, 1, 257280),
    ("Nemotron-3-Nano-30B-A3B", 6.26, 131072, {"runtime": "vllm@0.20"}, 1, 218688),
    ("Nemotron-3-Super-120B-A12B", 7.94, 262144,
     {"runtime": "vllm@0.14.1", "kv_type": "fp8", "state_type": "f32"}, 4, 690560),
]  # fmt: skip


@pytest.mark.parametrize(("model", "gib", "context", "settings", "ranks", "tokens"), POOLS)
def test_hybrid_pools_hold_exactly_the_printed_tokens(model, gib, context, settings, ranks, tokens):
    budget = VramBudget.for_model(model, quantization="bf16", context=context, **{"runtime": "vllm@0.26", **settings})
    assert budget.pool(gib * GIB, ranks=ranks).tokens == tokens


def test_full_attention_pools_hold_the_printed_tokens_within_their_rounding():
    budget = VramBudget.for_model("Kimi-K2", quantization="fp8", context=131072, runtime="vllm")
    low, high = (budget.pool(size * GIB, ranks=8).tokens for size in (46.795, 46.805))
    assert low <= 715072 <= high
    llama = VramBudget.for_model("Llama-3.1-8B", quantization="bf16", context=20000, runtime="vllm@0.6")
    low, high = (llama.pool(size * GIB).blocks for size in (3.805, 3.815))
    assert low <= 1952 <= high


def test_windows_filled_the_pool_before_hybrid_groups():
    def tokens(version):
        budget = VramBudget.for_model("Gemma-4-31B", quantization="awq", context=262144, runtime=f"vllm@{version}")
        return budget.pool(50 * GIB).tokens

    assert 50_000 < tokens("0.20") < 60_000
    assert 480_000 < tokens("0.21") < 600_000


def test_tensor_parallel_beyond_the_kv_heads_saves_no_cache():
    budget = VramBudget.for_model("Qwen3-235B-A22B", quantization="fp8", context=8192, runtime="vllm")
    per_rank = [budget.pool(10 * GIB, ranks=ranks).tokens for ranks in (1, 2, 4, 8)]
    assert per_rank[1] == pytest.approx(2 * per_rank[0], rel=1e-3)
    assert per_rank[2] == per_rank[3]


@pytest.mark.parametrize(
    ("model", "name", "bits"),
    [
        ("Llama-3.1-8B", "Q4_K_M", 4.8944), ("Llama-3.1-8B", "Q5_K_M", 5.7036), ("Llama-3.1-8B", "Q6_K", 6.5633),
        ("Llama-3.1-8B", "Q3_K_M", 3.996), ("Llama-3.1-8B", "Q2_K", 3.1593), ("Llama-3.1-8B", "IQ4_XS", 4.4597),
        ("Llama-3.1-8B", "IQ3_XXS", 3.2548), ("Llama-3.1-8B", "IQ2_XXS", 2.3824), ("Llama-3.1-8B", "IQ1_S", 2.0042),
        ("Qwen3-235B-A22B", "Q4_K_M", 4.837), ("Qwen3-30B-A3B", "Q5_K_M", 5.691), ("Qwen3-32B", "Q4_0", 4.566),
        ("DeepSeek-V2-Lite", "Q4_K_M", 5.277), ("DeepSeek-R1", "Q4_K_M", 4.822), ("Gemma-3-12B", "Q4_K_M", 4.955),
        ("Kimi-K2", "Q8_0", 8.504), ("GLM-Z1-32B-0414", "IQ4_XS", 4.321),
    ],
)  # fmt: skip
def test_whole_files_have_the_published_bits_per_weight(model, name, bits):
    budget = VramBudget.for_model(model, quantization=name)
    stored, truth = budget.file_weights, bits * budget.parameters / 8
    assert stored.low <= truth <= stored.high
    assert stored.high <= 1.06 * stored.likely
    assert budget.bits_per_weight == pytest.approx(bits, rel=0.035)


def test_quantised_checkpoints_keep_embeddings_and_head_wide():
    awq = VramBudget.for_model("Llama-3.1-8B", quantization="awq", context=1024, runtime="vllm")
    head = 2 * 128256 * 4096
    assert awq.file_weights.likely == pytest.approx((8_030_261_248 - head) * 4.15625 / 8 + head * 2, rel=1e-3)


def test_k_mixes_keep_the_outer_eighths_and_every_third_layer_between_wide():
    model = named_architecture("Qwen3-8B")
    mix = named_quantization("Q4_K_M")
    down = [mix.tensor_type(t, model) for t in model.tensors if t.role == "ffn_down"]
    assert len(down) == 36
    wide = [index for index, kind in enumerate(down) if kind == "Q6_K"]
    assert wide == [0, 1, 2, 3, 6, 9, 12, 15, 18, 21, 24, 27, 30, 31, 32, 33, 34, 35]


def test_names_of_quantisations():
    assert named_quantization("q4_k_m").name == "Q4_K_M"
    assert named_quantization("3.9bpw").bits == 3.9
    assert named_quantization("UD-Q4_K_XL").spread > named_quantization("Q4_K_M").spread
    for wrong in ("Q4_KM", "99bpw", "0.1bpw", ""):
        with pytest.raises(UsageError):
            named_quantization(wrong)


def test_every_model_of_the_catalogue_can_be_budgeted():
    for name in catalogue_names():
        for runtime in ("llama.cpp", "vllm"):
            budget = VramBudget.for_model(name, quantization="Q4_K_M", runtime=runtime, context=2048)
            assert budget.total.likely > budget.file_weights.likely * 0.5, name


def test_quality_follows_the_figures_and_is_worse_for_reasoning():
    def quality(model, name):
        return VramBudget.for_model(model, quantization=name).quality

    assert quality("Llama-3.1-8B", "Q8_0").loss == "negligible"
    assert quality("Llama-3.1-8B", "Q3_K_S").loss == "visible"
    assert quality("Llama-3.1-8B", "Q3_K_S").reasoning == "collapses"
    assert quality("Llama-3.1-8B", "IQ1_S").loss == "collapses"
    assert quality("Llama-3.1-70B", "IQ2_M").loss == "visible"
    assert quality("Llama-3.1-8B", "Q4_K_M").loss == "negligible"
    assert quality("Qwen3-0.6B", "Q4_K_M").loss == "visible"
    assert quality("Llama-3.1-8B", "Q4_K_M").figures[0].source
    assert VramBudget.from_parameters(8e9, bits=2.5, context=1024).quality.loss == "collapses"


def test_versions_switch_the_rules():
    assert Runtime.named("vllm@0.20")["counts"] == "groups"
    assert Runtime.named("vllm@0.21")["counts"] == "requests"
    assert Runtime.named("vllm")["utilization"] == 0.92
    assert Runtime.named("llama.cpp@before MLA")["latent"] is False
    assert Runtime.named("ollama@0.9")["output_rows"] == "ubatch"


def corpus():
    root = os.environ.get("OSPORT_CORPUS")
    if root is None:
        pytest.skip("OSPORT_CORPUS is not set; it names the folder of the facts and measurements")
    return Path(root)


def test_parameters_and_cache_of_the_corpus_follow_from_the_configs():
    seen = 0
    for row in json.loads((corpus() / "facts" / "models.json").read_text()):
        try:
            model = named_architecture(row["model"].split(" (")[0])
        except UsageError:
            continue
        seen += 1
        published_name_only = row["total_b"] == int(row["total_b"]) and row["total_b"] > 10
        assert model.parameters / 1e9 == pytest.approx(row["total_b"], rel=0.01 if published_name_only else 0.005)
        if isinstance(row["kv_bytes_per_token_f16"], int):
            assert 2 * sum(a.key_width + a.value_width for a in model.attention_layers) == row["kv_bytes_per_token_f16"]
    assert seen >= 50
