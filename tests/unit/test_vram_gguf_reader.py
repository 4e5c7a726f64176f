"""How a GGUF header becomes layers: the rules that llama.cpp keeps per architecture."""

import struct

import pytest

from osport.errors import FormatError
from osport.formats.gguf import GgufHeader
from osport.vram.gguf_reader import architecture_of_gguf
from osport.vram.kv_cache import layer_memory
from osport.vram.settings import Settings

BASE = {"block_count": 12, "context_length": 8192, "embedding_length": 256, "feed_forward_length": 512,
        "attention.head_count": 8, "attention.head_count_kv": 2}  # fmt: skip


def text(value):
    return struct.pack("<Q", len(value)) + value.encode()


def architecture(arch, **keys):
    """``a__b`` stands for ``a.b``; None leaves a key of BASE out."""
    named = {**BASE, **{name.replace("__", "."): value for name, value in keys.items()}}
    parts = [text("general.architecture") + struct.pack("<I", 8) + text(arch)]
    for name, value in named.items():
        if isinstance(value, list):
            parts.append(text(f"{arch}.{name}") + struct.pack(f"<IIQ{len(value)}i", 9, 5, len(value), *value))
        elif value is not None:
            parts.append(text(f"{arch}.{name}") + struct.pack("<II", 4, value))
    header = GgufHeader.parse(b"GGUF" + struct.pack("<IQQ", 3, 0, len(parts)) + b"".join(parts))
    return architecture_of_gguf(header, (), "header")


def windows(model):
    return [layer.attention.window for layer in model.layers]


def full_at(model):
    return [index for index, window in enumerate(windows(model)) if window is None]


def test_periods_put_the_full_layer_last_or_first():
    assert full_at(architecture("gemma3", attention__sliding_window=512)) == [5, 11]
    assert full_at(architecture("gpt-oss", attention__sliding_window=128)) == [1, 3, 5, 7, 9, 11]
    assert full_at(architecture("cohere2moe", attention__sliding_window=512)) == [0, 4, 8]
    assert set(windows(architecture("gemma2"))) == {4096, None}
    assert set(windows(architecture("gemma3"))) == {None}
    assert set(windows(architecture("phi3", attention__sliding_window=512))) == {None}


def test_a_listed_pattern_wins_over_the_period():
    pattern = [1] * 11 + [0]
    model = architecture("gemma4", attention__sliding_window=512, attention__sliding_window_pattern=pattern,
                         attention__key_length=64, attention__value_length=64, attention__key_length_swa=32,
                         attention__value_length_swa=32)  # fmt: skip
    assert full_at(model) == [11]
    assert (model.layers[0].attention.key_dim, model.layers[11].attention.key_dim) == (32, 64)
    with pytest.raises(FormatError, match="pattern is missing"):
        architecture("gemma4", attention__sliding_window=512)
    with pytest.raises(FormatError, match="3 entries for 12 layers"):
        architecture("gemma4", attention__sliding_window=512, attention__sliding_window_pattern=[1, 1, 0])


def test_layers_that_share_a_cache_own_none():
    pattern = [1, 0] * 6
    model = architecture("gemma4", attention__sliding_window=512, attention__sliding_window_pattern=pattern,
                         attention__shared_kv_layers=4)  # fmt: skip
    assert [layer.shares_kv for layer in model.layers] == [False] * 8 + [True] * 4
    assert len(model.attention_layers) == 8


SSM = {"ssm__conv_kernel": 4, "ssm__inner_size": 512, "ssm__state_size": 16, "ssm__group_count": 2}


def test_hybrids_recur_where_their_family_says_so():
    every_fourth = architecture("qwen35", **SSM)
    assert [layer.recurrent is None for layer in every_fourth.layers] == [False, False, False, True] * 3
    assert every_fourth.recurrent_layers[0].convolution == 3 * (512 + 2 * 2 * 16)
    assert every_fourth.recurrent_layers[0].state == 16 * 512
    by_heads = architecture("granitehybrid", attention__head_count_kv=[0, 2] * 6, **SSM)
    assert len(by_heads.attention_layers) == len(by_heads.recurrent_layers) == 6
    nemotron = architecture(
        "nemotron_h", attention__head_count_kv=[0, 0, 2] * 4, feed_forward_length=[0, 512, 0] * 4, **SSM
    )
    assert (len(nemotron.recurrent_layers), len(nemotron.attention_layers)) == (4, 4)
    both = architecture("falcon-h1", **SSM)
    assert len(both.attention_layers) == len(both.recurrent_layers) == 12
    short = architecture("lfm2", attention__head_count_kv=[0, 2] * 6, shortconv__l_cache=3)
    assert (short.recurrent_layers[0].convolution, short.recurrent_layers[0].state) == (2 * 256, 0)
    with pytest.raises(FormatError, match=r"ssm\.inner_size"):
        architecture("mamba2")


def test_mla_keeps_a_latent_only_where_the_file_knows_of_it():
    settings = Settings.of({"context": 256})
    new = architecture("deepseek2", attention__head_count_kv=1, attention__kv_lora_rank=512, rope__dimension_count=64,
                       attention__key_length=576, attention__value_length=512, attention__key_length_mla=192,
                       attention__value_length_mla=128)  # fmt: skip
    assert layer_memory(new.layers[0], new, 256, settings).latent == 576 * 2 * 256
    old = architecture("deepseek2", attention__head_count_kv=8, attention__kv_lora_rank=512, rope__dimension_count=64,
                       attention__key_length=192, attention__value_length=128)  # fmt: skip
    assert layer_memory(old.layers[0], old, 256, settings).full == 8 * (192 + 128) * 2 * 256


def test_an_indexer_that_layers_share_is_kept_once():
    keys = {"attention__kv_lora_rank": 512, "rope__dimension_count": 64, "attention__key_length_mla": 256,
            "attention__value_length_mla": 256, "attention__indexer__key_length": 128}  # fmt: skip
    model = architecture("glm-dsa", attention__indexer__types=[1, 0, 0, 0] * 3, **keys)
    assert sum(layer.indexer_dim for layer in model.attention_layers) == 3 * 128


def test_draft_layers_own_no_cells():
    model = architecture("glm4moe", nextn_predict_layers=1)
    assert (len(model.layers), model.draft_layers) == (11, 1)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"block_count": None}, "block_count"),
        ({"block_count": 100_000}, "absurd"),
        ({"attention__head_count": 7}, "cannot share"),
        ({"attention__head_count_kv": [2, 2]}, "2 numbers for 12 layers"),
        ({"attention__head_count_kv": [-2] * 12}, "numbers for 12 layers"),
        ({"embedding_length": 0}, "embedding_length"),
    ],
)
def test_headers_that_contradict_themselves_are_refused(keys, message):
    with pytest.raises(FormatError, match=message):
        architecture("llama", **keys)
