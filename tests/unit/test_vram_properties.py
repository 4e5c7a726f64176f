"""What must hold for every model and every setting: memory never shrinks when more is asked for."""

from hypothesis import given, settings
from hypothesis import strategies as st

from osport.vram import Device, Verdict, VramBudget
from osport.vram.catalogue import catalogue_names

MODELS = st.sampled_from(catalogue_names())
RUNTIMES = st.sampled_from(
    ["llama.cpp", "llama.cpp@2025", "llama-server", "llama-cpp-python", "ik_llama.cpp", "ollama", "vllm", "vllm@0.20"]
)
GIB = 2**30


def budget(model, runtime, **settings):
    return VramBudget.for_model(model, quantization="Q4_K_M", runtime=runtime, rope_scaling=True, **settings)


@settings(max_examples=60, deadline=None)
@given(MODELS, RUNTIMES, st.integers(1, 300_000), st.integers(1, 100_000), st.integers(1, 16))
def test_need_grows_with_the_context(model, runtime, context, more, sequences):
    one = budget(model, runtime, context=context, sequences=sequences)
    two = budget(model, runtime, context=context + more, sequences=sequences)
    assert two.kv_cache.likely >= one.kv_cache.likely
    assert two.total.likely >= one.total.likely


@settings(max_examples=40, deadline=None)
@given(MODELS, st.sampled_from(["ollama", "vllm"]), st.integers(256, 32768), st.integers(1, 32))
def test_need_grows_with_the_sequences(model, runtime, context, sequences):
    one = budget(model, runtime, context=context, sequences=sequences)
    assert budget(model, runtime, context=context, sequences=sequences + 1).total.likely >= one.total.likely


@settings(max_examples=60, deadline=None)
@given(MODELS, RUNTIMES, st.integers(1, 2**40), st.integers(1, 2**36), st.integers(256, 65536))
def test_a_larger_device_never_fits_less(model, runtime, usable, more, context):
    order = [Verdict.DOES_NOT_FIT, Verdict.FITS_WITH_RISK, Verdict.FITS]
    made = budget(model, runtime, context=context)
    small, large = made.fits(Device("a", usable)).verdict, made.fits(Device("b", usable + more)).verdict
    assert order.index(large) >= order.index(small)


@settings(max_examples=40, deadline=None)
@given(MODELS, RUNTIMES, st.integers(256, 65536), st.integers(1, 8))
def test_intervals_are_ordered_and_rows_add_up(model, runtime, context, sequences):
    made = budget(model, runtime, context=context, sequences=sequences)
    rows = made.ledger()
    assert all(0 <= row.bytes.low <= row.bytes.likely <= row.bytes.high for row in rows)
    assert made.total.likely == sum(row.bytes.likely for row in rows if row.need and row.device != "host")
    assert sum(row.bytes.likely for row in rows if row.term.startswith("weights")) >= 0.99 * made.file_weights.likely


@settings(max_examples=25, deadline=None)
@given(MODELS, st.sampled_from(["llama.cpp", "vllm"]), st.integers(4, 200))
def test_solvers_stand_exactly_at_the_edge(model, runtime, gib):
    device = Device("card", gib * GIB)
    made = VramBudget.for_model(model, quantization="Q4_K_M", runtime=runtime, context=1024)
    most = made.largest_context(device)
    trained = made.architecture.context
    if most:
        assert made.with_settings(context=most).fits(device).verdict is Verdict.FITS
    if most + 256 <= trained:
        assert made.with_settings(context=most + 256).fits(device).verdict is not Verdict.FITS


@settings(max_examples=30, deadline=None)
@given(MODELS, st.integers(2, 8), st.integers(1024, 32768))
def test_splitting_over_cards_loses_no_weights(model, count, context):
    made = VramBudget.for_model(model, quantization="Q4_K_M", context=context, rope_scaling=True)
    rows = made.ledger(["RTX 4090"] * count)
    assert sum(row.bytes.likely for row in rows if row.term == "weights") == made.weights.likely
    kept = sum(row.bytes.likely for row in rows if row.term.startswith("KV cache"))
    assert kept == made.kv_cache.likely
