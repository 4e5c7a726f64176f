"""The command line of VramBudget."""

import json

import pytest
from click.testing import CliRunner

from osport.cli.vram import vram
from osport.errors import UsageError


def run(*arguments):
    result = CliRunner().invoke(vram, list(arguments), standalone_mode=False)
    if result.exception is not None:
        raise result.exception
    return result


def test_a_model_that_fits_prints_its_ledger():
    result = run("Qwen3-8B", "--device", "RTX 4090", "--context", "8k")
    assert not result.return_value
    assert "KV cache, full attention" in result.output
    assert "\nfits: needs" in result.output


def test_a_model_that_does_not_fit_exits_with_one():
    result = run("Qwen3-32B", "-d", "RTX 3060", "-c", "32k")
    assert result.return_value == 1
    assert "does_not_fit" in result.output
    assert "saving: KV cache to q8_0" in result.output


def test_an_unknown_architecture_exits_with_three(tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"model_type": "martian"}))
    result = run(str(path), "-d", "RTX 4090", "-c", "1024")
    assert result.return_value == 3
    assert "martian" in result.output


def test_json_is_in_bytes_and_complete():
    result = run("Qwen3-8B", "-q", "Q8_0", "-d", "RTX 4090", "-c", "8192", "--kv-type", "q8_0/f16", "--json")
    table = json.loads(result.output)
    assert table["fit"]["verdict"] == "fits"
    assert table["total"]["likely"] == sum(
        row["bytes"]["likely"] for row in table["rows"] if row["need"] and row["device"] != "host"
    )
    kv = next(row for row in table["rows"] if row["term"].startswith("KV cache"))
    assert kv["bytes"]["likely"] == 8192 * 36 * 1024 * (34 / 32 + 2)


@pytest.mark.parametrize("wrong", [["-c", "12x"], ["-d", "RTX 9999"], ["-q", "Q4_KM"], ["-r", "lama"]])
def test_wrong_options_are_usage_errors(wrong):
    with pytest.raises(UsageError):
        run("Qwen3-8B", *wrong)


def test_a_gguf_file_takes_no_quantisation(tmp_path):
    with pytest.raises(UsageError, match="its own quantisation"):
        run(str(tmp_path / "m.gguf"), "-q", "Q8_0")
