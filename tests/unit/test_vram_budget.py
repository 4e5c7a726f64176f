"""VramBudget: the public API on models whose memory is known to the byte."""

import json
import struct

import pytest
from attrs import evolve

from osport.core.facts import ModelFacts
from osport.errors import BudgetExceeded, FormatError, UsageError
from osport.vram import Device, Estimate, Verdict, VramBudget

GIB, MIB = 2**30, 2**20

LLAMA = {
    "model_type": "llama", "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32,
    "num_key_value_heads": 8, "intermediate_size": 14336, "vocab_size": 128256, "max_position_embeddings": 131072,
    "tie_word_embeddings": False,
}  # fmt: skip


@pytest.fixture
def config(tmp_path):
    def write(**changes):
        path = tmp_path / "config.json"
        path.write_text(json.dumps({k: v for k, v in {**LLAMA, **changes}.items() if v is not None}))
        return path

    return write


def text(value):
    return struct.pack("<Q", len(value)) + value.encode()


def gguf_file(path, arch="llama", layers=2, tied=False, extra=()):
    """A small model of our own: hidden 64, four heads of 16, two KV heads, vocabulary 512, F16."""
    numbers = {"block_count": layers, "context_length": 2048, "embedding_length": 64, "feed_forward_length": 128,
               "attention.head_count": 4, "attention.head_count_kv": 2}  # fmt: skip
    keys = [text("general.architecture") + struct.pack("<I", 8) + text(arch)]
    keys += [text(f"{arch}.{k}") + struct.pack("<II", 4, v) for k, v in numbers.items()]
    keys += list(extra)
    shapes = {"token_embd.weight": (64, 512), "output_norm.weight": (64,)}
    if not tied:
        shapes["output.weight"] = (64, 512)
    for i in range(layers):
        shapes |= {f"blk.{i}.attn_q.weight": (64, 64), f"blk.{i}.attn_k.weight": (64, 32),
                   f"blk.{i}.attn_v.weight": (64, 32), f"blk.{i}.attn_output.weight": (64, 64),
                   f"blk.{i}.ffn_up.weight": (64, 128), f"blk.{i}.ffn_gate.weight": (64, 128),
                   f"blk.{i}.ffn_down.weight": (128, 64)}  # fmt: skip
    table, at = b"", 0
    for name, shape in shapes.items():
        table += text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, 1, at)
        size = 2
        for length in shape:
            size *= length
        at += -(-size // 32) * 32
    head = b"GGUF" + struct.pack("<IQQ", 3, len(shapes), len(keys)) + b"".join(keys) + table
    path.write_bytes(head + bytes(-len(head) % 32) + bytes(at))
    return path


def test_the_ledger_of_a_gguf_file_is_exact(tmp_path):
    budget = VramBudget.from_gguf(gguf_file(tmp_path / "m.gguf"), context=1024)
    layer = 2 * (64 * 64 * 2 + 64 * 32 * 2 + 3 * 64 * 128)
    assert budget.weights == Estimate.exact(2 * layer + 2 * 64 * 512 + 2 * 64)
    assert budget.file_weights == Estimate.exact(2 * layer + 2 * 2 * 64 * 512 + 2 * 64)
    assert budget.kv_cache == Estimate.exact(2 * 1024 * (32 + 32) * 2)
    assert budget.state == Estimate.exact(0)
    assert budget.parameters == layer + 2 * 64 * 512 + 64
    assert budget.missing == ()


def test_a_tied_embedding_lies_on_both_sides(tmp_path):
    untied = VramBudget.from_gguf(gguf_file(tmp_path / "a.gguf"), context=256)
    tied = VramBudget.from_gguf(gguf_file(tmp_path / "b.gguf", tied=True), context=256)
    assert tied.weights == untied.weights
    host = [row.bytes for row in tied.ledger() if row.device == "host" and row.term.startswith("weights")]
    assert host == [Estimate.exact(2 * 64 * 512)]


def test_every_row_says_its_rule_and_source(config):
    for runtime in ("llama.cpp", "llama-server", "ik_llama.cpp", "ollama", "vllm"):
        budget = VramBudget.from_hf(config(), context=4096, runtime=runtime)
        assert all(row.rule and row.source for row in budget.ledger("RTX 4090"))
        assert any(row.term == "weights" for row in budget.ledger())


def test_total_is_the_sum_of_needs(config):
    budget = VramBudget.from_hf(config(), context=4096, runtime="llama.cpp")
    needs = [row.bytes.likely for row in budget.ledger() if row.need]
    assert budget.total.likely == sum(needs)
    parts = budget.weights.likely + budget.kv_cache.likely + budget.state.likely + budget.compute.likely
    assert budget.total.likely == parts + budget.overhead.likely


def test_bf16_weights_and_kv_of_an_8b_model(config):
    budget = VramBudget.from_hf(config(), context=8192, runtime="llama.cpp")
    assert budget.parameters == 8_030_261_248
    assert budget.file_weights.likely == pytest.approx(2 * budget.parameters, rel=1e-6)
    assert budget.kv_cache == Estimate.exact(8192 * 131072)


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"context": 0}, "context"),
        ({"context": -5}, "context"),
        ({"context": 131072 * 2}, "trained for"),
        ({"sequences": 0}, "sequences"),
        ({"kv_type": "q9_9"}, "q8_0"),
        ({"kv_type": "fp8", "runtime": "llama.cpp"}, "no KV cache of type"),
        ({"runtime": "lama.cpp"}, "llama.cpp"),
        ({"runtime": "vllm@abc"}, "version"),
        ({"flash_attention": False, "kv_type": "q8_0", "runtime": "llama.cpp"}, "flash attention"),
        ({"ubatch": -1, "runtime": "llama.cpp"}, "ubatch"),
        ({"utilization": 1.5}, "utilization"),
        ({"cotext": 5}, "did you mean 'context'"),
        ({"state_type": "f64"}, "state_type"),
        ({"draft": -1}, "draft"),
    ],
)
def test_settings_that_cannot_be_are_refused(config, keywords, message):
    with pytest.raises(UsageError, match=message):
        VramBudget.from_hf(config(), **keywords)


def test_a_stretched_context_is_allowed_when_said(config):
    budget = VramBudget.from_hf(config(), context=262144, rope_scaling=True, runtime="llama.cpp")
    assert budget.kv_cache.likely == 262144 * 131072


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_attention_heads": 30}, "cannot share"),
        ({"num_hidden_layers": 0}, "num_hidden_layers"),
        ({"num_hidden_layers": 10**9}, "absurd"),
        ({"hidden_size": "big"}, "hidden_size"),
        ({"hidden_size": None}, "missing"),
        ({"layer_types": ["telepathy"] * 32}, "telepathy"),
        ({"layer_types": ["full_attention"]}, "1 layer kinds for 32 layers"),
        ({"layer_types": ["sliding_attention"] * 32}, "without sliding_window"),
        ({"model_type": None}, "no model_type"),
        ({"layer_types": "all"}, "not a list"),
    ],
)
def test_configs_that_contradict_themselves_are_refused(config, changes, message):
    with pytest.raises(FormatError, match=message):
        VramBudget.from_hf(config(**changes), context=1024)


def test_an_unknown_family_is_unknown_and_never_a_number(config):
    budget = VramBudget.from_hf(config(model_type="lama"), context=1024)
    assert budget.total is None
    assert budget.kv_cache is None
    assert "unknown model_type 'lama'; nearest known: llama" in budget.missing[0]
    fit = budget.fits("RTX 4090")
    assert fit.verdict is Verdict.UNKNOWN


def test_an_unknown_gguf_architecture_keeps_its_exact_weights(tmp_path):
    budget = VramBudget.from_gguf(gguf_file(tmp_path / "m.gguf", arch="martian"), context=256)
    assert budget.file_weights.is_exact
    assert budget.total is None
    assert "martian" in budget.missing[0]
    assert budget.fits("RTX 4090").verdict is Verdict.UNKNOWN
    assert budget.fits(Device("chip", usable=1024)).verdict is Verdict.DOES_NOT_FIT


def test_verdicts_move_with_the_memory(config):
    budget = VramBudget.from_hf(config(), context=8192, runtime="llama.cpp")
    need = budget.total
    assert budget.fits(Device("big", need.high + 2 * GIB)).verdict is Verdict.FITS
    assert budget.fits(Device("snug", need.likely + GIB // 2)).verdict is Verdict.FITS_WITH_RISK
    small = budget.fits(Device("small", need.likely - MIB))
    assert small.verdict is Verdict.DOES_NOT_FIT
    assert (small.binding_device, small.binding_term) == ("small", "weights")
    assert small.headroom == -MIB
    assert not small


def test_two_cards_share_the_layers(config):
    budget = VramBudget.from_hf(config(), context=8192, runtime="llama.cpp")
    one = budget.fits("RTX 4090").needed.likely
    pair = budget.fits(["RTX 4090"] * 2)
    assert pair.needed.likely < 0.65 * one
    weights = [row.bytes.likely for row in pair.rows if row.term == "weights"]
    assert len(weights) == 2
    assert sum(weights) == budget.weights.likely


def test_unequal_cards_get_unequal_shares(config):
    rows = VramBudget.from_hf(config(), context=1024, runtime="llama.cpp").ledger(["RTX 3060", "RTX 4090"])
    small, large = [row.bytes.likely for row in rows if row.term == "weights"]
    assert small < 0.6 * large


def test_the_tightest_card_binds(config):
    budget = VramBudget.from_hf(config(), quantization="Q8_0", context=8192, runtime="vllm")
    fit = budget.fits([Device("large", 80 * GIB), Device("small", 4 * GIB)])
    assert fit.verdict is Verdict.DOES_NOT_FIT
    assert fit.binding_device == "small #1"
    assert budget.fits([Device("small", 4 * GIB), Device("large", 80 * GIB)]).binding_device == "small #0"


def test_tensor_parallel_must_divide_the_heads(config):
    budget = VramBudget.from_hf(config(), context=1024, runtime="vllm")
    with pytest.raises(UsageError, match="does not divide the 32 attention heads"):
        budget.fits(["H100"] * 3)
    assert budget.fits(["H100"] * 4)


def test_vllm_reserves_more_than_it_needs(config):
    rows = VramBudget.from_hf(config(), context=4096, runtime="vllm").ledger("RTX 4090")
    reserve = next(row for row in rows if row.term == "KV pool reserve")
    assert not reserve.need
    assert reserve.bytes.likely > 0
    held = sum(row.bytes.likely for row in rows if row.need) + reserve.bytes.likely
    assert held == pytest.approx(0.92 * Device.named("RTX 4090").usable, rel=1e-6)


def test_the_largest_context_is_the_last_that_fits(config):
    budget = VramBudget.from_hf(config(), quantization="Q8_0", context=1024, runtime="llama.cpp")
    most = budget.largest_context("RTX 3060")
    assert most % 256 == 0
    assert budget.with_settings(context=most).fits("RTX 3060").verdict is Verdict.FITS
    assert budget.with_settings(context=most + 256).fits("RTX 3060").verdict is not Verdict.FITS
    assert budget.largest_context("RTX 3060", risk=True) > most


def test_the_most_sequences_is_the_last_that_fits(config):
    budget = VramBudget.from_hf(config(), quantization="awq", context=4096, runtime="vllm")
    most = budget.most_sequences("RTX 4090")
    assert most > 1
    assert budget.with_settings(sequences=most).fits("RTX 4090").verdict is Verdict.FITS
    assert budget.with_settings(sequences=most + 1).fits("RTX 4090").verdict is not Verdict.FITS


def test_the_best_quantization_is_the_first_rung_that_fits(config):
    budget = VramBudget.from_hf(config(), context=4096, runtime="llama.cpp")
    assert budget.best_quantization("RTX 4090") == "BF16"
    assert budget.best_quantization("RTX 3060") == "Q8_0"
    assert budget.best_quantization(Device("stamp", GIB)) is None


def test_decode_ceiling_is_bandwidth_over_bytes_read(config):
    budget = VramBudget.from_hf(config(), context=1024, runtime="llama.cpp")
    device = Device("card", 40 * GIB, bandwidth=1e12)
    ceiling = budget.decode_ceiling(device)
    read = 2 * (8_030_261_248 - 4096 * 128256) + 1024 * 131072
    assert ceiling.bytes_per_token == pytest.approx(read, rel=1e-3)
    assert ceiling.tokens_per_second == pytest.approx(1e12 / read, rel=1e-3)
    assert ceiling.expected[0] < ceiling.expected[1] < ceiling.tokens_per_second
    with pytest.raises(UsageError, match="bandwidth"):
        budget.decode_ceiling(Device("card", 40 * GIB))


def test_a_mixture_of_experts_has_two_ledgers():
    budget = VramBudget.for_model("Qwen3-30B-A3B", quantization="Q8_0", context=4096)
    experts = budget.experts
    assert experts.resident_parameters == pytest.approx(30.53e9, rel=1e-3)
    assert experts.active_parameters == pytest.approx(3.04e9, rel=1e-2)
    assert experts.bytes_resident.likely > 8 * experts.bytes_read_per_token
    assert VramBudget.for_model("Qwen3-8B", quantization="Q8_0", context=4096).experts is None


def test_experts_on_the_cpu_leave_the_device():
    budget = VramBudget.for_model("Qwen3-30B-A3B", quantization="Q4_K_M", context=4096)
    moved = budget.with_settings(cpu_experts=True)
    assert moved.weights.likely < 0.15 * budget.weights.likely
    assert any(row.term == "staging" for row in moved.ledger())
    host = next(row for row in moved.ledger() if row.term == "weights on the host")
    assert host.bytes.likely + moved.weights.likely == pytest.approx(moved.file_weights.likely, rel=1e-6)
    with pytest.raises(UsageError, match="host_bandwidth"):
        moved.decode_ceiling("RTX 4090")
    assert moved.decode_ceiling("RTX 4090", host_bandwidth=60e9).tokens_per_second < 60


def test_layers_on_the_host_take_no_device_memory(config):
    whole = VramBudget.from_hf(config(), context=4096, runtime="llama.cpp")
    half = whole.with_settings(gpu_layers=16)
    none = whole.with_settings(gpu_layers=0)
    assert half.weights.likely < 0.55 * whole.weights.likely
    assert half.kv_cache.likely == pytest.approx(whole.kv_cache.likely * 15 / 32)
    assert none.weights.likely == 0
    assert none.kv_cache.likely == 0


def test_unified_memory_counts_the_host_rows(config):
    budget = VramBudget.from_hf(config(), context=4096, runtime="llama.cpp")
    assert budget.fits("M4 Max 64GB").needed.likely > budget.fits("RTX A6000").needed.likely
    assert budget.fits(Device("CPU", 64 * GIB, vendor="cpu", unified=True)).verdict is Verdict.FITS


def test_vllm_on_a_mac_does_not_fit(config):
    fit = VramBudget.from_hf(config(), context=4096, runtime="vllm").fits("M4 Max")
    assert fit.verdict is Verdict.DOES_NOT_FIT
    assert "llama.cpp" in fit.reason


def test_draft_and_projector_have_rows_of_their_own(config):
    budget = VramBudget.from_hf(config(), context=4096, runtime="llama.cpp", draft=GIB, projector=GIB)
    terms = {row.term: row.bytes for row in budget.ledger()}
    assert terms["draft model"].low == GIB
    assert terms["multimodal projector"].likely == pytest.approx(1.35 * GIB)


def test_a_bare_count_is_rough_and_says_so():
    budget = VramBudget.from_parameters(32e9, bits=4, context=8192)
    assert budget.rough
    assert "(rough)" in str(budget)
    assert budget.total.high > 1.5 * budget.total.likely
    assert budget.fits("RTX 3060").verdict is Verdict.DOES_NOT_FIT
    assert budget.fits("RTX 4090").verdict is Verdict.FITS_WITH_RISK
    card = Device("card", 40 * GIB, bandwidth=1e12)
    assert budget.decode_ceiling(card).bytes_per_token == budget.weights.likely + budget.kv_cache.likely
    vllm = VramBudget.from_parameters(32e9, bits=4, context=8192, runtime="vllm")
    assert vllm.total.likely > 14 * GIB
    for bad in (0, -1, "many"):
        with pytest.raises(UsageError):
            VramBudget.from_parameters(bad, bits=4)
    with pytest.raises(UsageError):
        VramBudget.from_parameters(1e9, bits=0)


def test_as_a_stage_it_stops_what_does_not_fit(tmp_path):
    path = gguf_file(tmp_path / "m.gguf")
    budget = VramBudget.from_gguf(path, context=256)
    facts = ModelFacts.of("test", path=str(path))
    budget.on(Device("big", 64 * GIB)).gate(facts)
    with pytest.raises(BudgetExceeded, match="does not fit") as caught:
        budget.on(Device("stamp", MIB)).gate(facts)
    assert caught.value.available == MIB
    assert caught.value.needed > MIB
    with pytest.raises(UsageError, match="made for"):
        budget.on(Device("big", 64 * GIB)).gate(ModelFacts.of("test", path=str(gguf_file(tmp_path / "other.gguf"))))


def test_the_gate_passes_what_it_cannot_judge(config):
    budget = VramBudget.from_hf(config(model_type="lama"), context=1024)
    budget.on("RTX 4090").gate(ModelFacts())
    assert budget.fits("RTX 4090").verdict is Verdict.UNKNOWN


def test_unknown_names_suggest_the_nearest():
    with pytest.raises(UsageError, match="Qwen3-32B"):
        VramBudget.for_model("Qwen3-23B", quantization="Q4_K_M")
    with pytest.raises(UsageError, match="Q4_K_M"):
        VramBudget.for_model("Qwen3-32B", quantization="Q4_KM")
    with pytest.raises(UsageError, match="RTX 4090"):
        VramBudget.for_model("Qwen3-32B", quantization="Q4_K_M", context=1024).fits("RTX 4095")


def test_names_are_found_with_their_usual_suffixes():
    for name in ("meta-llama/Llama-3.1-8B-Instruct", "llama-3.1-8b", "Qwen3-8B-GGUF", "gemma-3-4b-it-GGUF"):
        assert VramBudget.for_model(name, quantization="Q4_K_M", context=1024).total is not None


def test_advice_saves_what_it_says(config):
    budget = VramBudget.from_hf(config(), context=65536, runtime="llama.cpp")
    advice = {item.action: item for item in budget.advice("RTX 3060")}
    assert advice["kv_type"].saves == budget.total.likely - budget.with_settings(kv_type="q8_0").total.likely
    assert advice["context"].saves > 0
    assert "Q8_0" in advice["quantization"].text
    assert "devices" in advice
    savings = [item.saves for item in budget.advice("RTX 3060") if item.kind == "saving"]
    assert savings == sorted(savings, reverse=True)


def test_warnings_name_the_usual_mistakes(config):
    def actions(budget, device=None):
        return {item.action for item in budget.advice(device) if item.kind == "warning"}

    base = VramBudget.from_hf(config(), quantization="Q2_K", context=4096, runtime="llama.cpp")
    assert "low_bits" in actions(base)
    assert "kv_bits" in actions(base.with_settings(kv_type="q4_0"))
    assert {"concurrency", "context_default"} <= actions(
        base.with_settings(runtime="ollama", sequences=16, context=4096)
    )
    vllm = VramBudget.from_hf(config(), context=4096, runtime="vllm")
    assert "vllm_on_mac" in actions(vllm, "M4 Max")
    assert "kv_heads" in actions(vllm, ["H100"] * 16)
    assert "weights_alone" in actions(base.with_settings(context=65536))
    assert "active_parameters" in actions(VramBudget.for_model("gpt-oss-20b", quantization="Q8_0", context=4096))


def test_the_decision_map_agrees_with_single_budgets():
    table = VramBudget.decision_map(
        ["Qwen3-8B", "Qwen3-32B"], device="RTX 4090", quantizations=["Q8_0", "Q4_K_M"], context=8192
    )
    for model in ("Qwen3-8B", "Qwen3-32B"):
        for name in ("Q8_0", "Q4_K_M"):
            budget = VramBudget.for_model(model, quantization=name, context=8192)
            cell = table.cell(model, name)
            assert cell.verdict is budget.fits("RTX 4090").verdict
            assert cell.largest_context == budget.largest_context("RTX 4090")
            assert cell.total == budget.total
    assert "Qwen3-32B" in table._repr_html_()
    assert "Q4_K_M" in str(table)
    with pytest.raises(UsageError):
        table.cell("Qwen3-8B", "Q5_K_M")


def test_the_decision_map_draws_a_heat_map():
    table = VramBudget.decision_map(["Qwen3-8B"], device="RTX 4090", quantizations=["Q4_K_M"], context=8192)
    axes = table.plot().axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["Q4_K_M"]


def test_html_has_a_row_for_every_term_and_escapes_names(config, tmp_path):
    budget = VramBudget.from_hf(config(), context=4096, runtime="llama.cpp")
    html = budget._repr_html_()
    assert all(row.term in html for row in budget.ledger())
    named = evolve(budget, architecture=evolve(budget.architecture, name="<script>"))
    assert "<script>" not in named._repr_html_()


def test_shards_are_read_together_and_a_missing_one_is_named(tmp_path):
    split = [text("split.count") + struct.pack("<IH", 2, 2)]
    first = gguf_file(tmp_path / "m-00001-of-00002.gguf", extra=split)
    with pytest.raises(FormatError, match=r"m-00002-of-00002\.gguf is missing"):
        VramBudget.from_gguf(first, context=256)
    gguf_file(tmp_path / "m-00002-of-00002.gguf", layers=1, extra=split)
    single = VramBudget.from_gguf(gguf_file(tmp_path / "s.gguf"), context=256)
    other = VramBudget.from_gguf(gguf_file(tmp_path / "t.gguf", layers=1), context=256)
    both = VramBudget.from_gguf(first, context=256)
    assert both.file_weights.likely == single.file_weights.likely + other.file_weights.likely
    with pytest.raises(FormatError, match="give the first shard"):
        VramBudget.from_gguf(tmp_path / "m-00002-of-00002.gguf", context=256)


def test_the_beginning_of_a_file_is_enough(tmp_path):
    path = gguf_file(tmp_path / "m.gguf")
    whole = VramBudget.from_gguf(path, context=256)
    path.write_bytes(path.read_bytes()[:-10_000])
    assert VramBudget.from_gguf(path, context=256).total == whole.total
