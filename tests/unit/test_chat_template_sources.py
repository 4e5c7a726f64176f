import json
import struct

import pytest

from osport.chat_template import ChatTemplate
from osport.chat_template.sources import read_gguf, read_hf
from osport.core.types import Message
from osport.errors import FormatError, StorageError, TemplateError

STRING, ARRAY, UINT32, BOOL = 8, 9, 4, 7


def _text(value):
    raw = value.encode()
    return struct.pack("<Q", len(raw)) + raw


def _value(value):
    if isinstance(value, bool):
        return struct.pack("<I?", BOOL, value)
    if isinstance(value, int):
        return struct.pack("<II", UINT32, value)
    if isinstance(value, list):
        return struct.pack("<IIQ", ARRAY, STRING, len(value)) + b"".join(map(_text, value))
    return struct.pack("<I", STRING) + _text(value)


def write_gguf(path, **metadata):
    """A GGUF file with a header and no tensors; keys are given with __ for a dot."""
    pairs = {"general.architecture": "llama", **{k.replace("__", "."): v for k, v in metadata.items()}}
    head = struct.pack("<4sIQQ", b"GGUF", 3, 0, len(pairs))
    path.write_bytes(head + b"".join(_text(k) + _value(v) for k, v in pairs.items()))
    return path


@pytest.fixture
def gguf(tmp_path):
    return lambda **metadata: write_gguf(tmp_path / "model.gguf", **metadata)


VOCABULARY = {
    "tokenizer__ggml__tokens": ["<unk>", "<s>", "</s>"],
    "tokenizer__ggml__bos_token_id": 1,
    "tokenizer__ggml__eos_token_id": 2,
}


def test_gguf_template_and_tokens(gguf):
    path = gguf(tokenizer__chat_template="{{ bos_token }}{{ messages[0].content }}{{ eos_token }}", **VOCABULARY)
    template = ChatTemplate.from_gguf(path)
    assert template.render([Message.user("Hi")]).text == "<s>Hi</s>"
    assert template.source == str(path)


def test_gguf_without_a_template_is_an_error(gguf):
    with pytest.raises(TemplateError, match="has no chat template"):
        ChatTemplate.from_gguf(gguf(**VOCABULARY))


def test_gguf_named_templates_are_chosen_by_name(gguf):
    path = gguf(tokenizer__chat_template="plain", tokenizer__chat_template__tool_use="with tools")
    assert ChatTemplate.from_gguf(path).text == "plain"
    assert ChatTemplate.from_gguf(path, name="tool_use").text == "with tools"
    with pytest.raises(TemplateError, match="no chat template named 'rag'; it has: default, tool_use"):
        ChatTemplate.from_gguf(path, name="rag")


@pytest.mark.parametrize(
    ("metadata", "adds"),
    [
        ({"tokenizer__ggml__model": "llama"}, True),
        ({"tokenizer__ggml__model": "gpt2"}, False),
        ({"tokenizer__ggml__model": "gpt2", "tokenizer__ggml__pre": "llama-bpe"}, True),
        ({"tokenizer__ggml__model": "llama", "tokenizer__ggml__add_bos_token": False}, False),
        ({"tokenizer__ggml__model": "gpt2", "tokenizer__ggml__add_bos_token": True}, True),
    ],
)
def test_gguf_says_whether_the_tokenizer_adds_bos(gguf, metadata, adds):
    assert read_gguf(gguf(**metadata)).adds_bos is adds


def write_hf(folder, config, **files):
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)
    return folder


def test_hf_template_inside_the_config(tmp_path):
    write_hf(
        tmp_path,
        {"chat_template": "{{ bos_token }}{{ eos_token }}", "bos_token": "<s>", "eos_token": {"content": "</s>"}},
    )
    assert ChatTemplate.from_hf(tmp_path).render([Message.user("Hi")]).text == "<s></s>"


def test_hf_template_file_wins_over_the_config(tmp_path):
    write_hf(tmp_path, {"chat_template": "old"}, chat_template__jinja="new")
    assert ChatTemplate.from_hf(tmp_path).text == "new"


def test_hf_named_templates(tmp_path):
    write_hf(tmp_path, {"chat_template": [{"name": "default", "template": "a"}, {"name": "rag", "template": "b"}]})
    (tmp_path / "additional_chat_templates").mkdir()
    (tmp_path / "additional_chat_templates" / "tool_use.jinja").write_text("c")
    assert read_hf(tmp_path).templates == {"default": "a", "rag": "b", "tool_use": "c"}


def test_hf_tokens_from_the_special_tokens_map(tmp_path):
    write_hf(tmp_path, {"chat_template": "x"}, special_tokens_map__json=json.dumps({"bos_token": "<b>"}))
    assert read_hf(tmp_path).tokens == {"bos_token": "<b>"}


@pytest.mark.parametrize("wrapped", [False, True])
def test_hf_post_processor_that_adds_bos(tmp_path, wrapped):
    processor = {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}]}
    if wrapped:
        processor = {"type": "Sequence", "processors": [{"type": "ByteLevel"}, processor]}
    write_hf(
        tmp_path,
        {"chat_template": "x", "bos_token": "<s>"},
        tokenizer__json=json.dumps({"post_processor": processor}),
    )
    assert read_hf(tmp_path).adds_bos is True


def test_hf_folder_that_is_none(tmp_path):
    with pytest.raises(StorageError, match="is not a folder"):
        ChatTemplate.from_hf(tmp_path / "nowhere")


def test_hf_without_a_template(tmp_path):
    with pytest.raises(TemplateError, match="has no chat template"):
        ChatTemplate.from_hf(write_hf(tmp_path, {}))


@pytest.mark.parametrize(
    ("text", "complaint"),
    [("{", "is not JSON"), ("[1]", "expected a JSON object"), ('{"chat_template": ["x"]}', "name, template")],
)
def test_hf_config_that_lies(tmp_path, text, complaint):
    (tmp_path / "tokenizer_config.json").write_text(text)
    with pytest.raises(FormatError, match=complaint):
        ChatTemplate.from_hf(tmp_path)
