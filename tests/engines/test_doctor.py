"""The doctor and the nonce probe on real servers: one as it should be, one with another template, one without any."""

import pytest
from keyless_server import Server

from osport import Model, probe_constraints
from osport.doctor import diagnose
from osport.doctor.server import server_findings

pytest.importorskip("xllamacpp")
pytestmark = pytest.mark.engine


@pytest.fixture(autouse=True)
def _own_cache(model_path, tmp_path, monkeypatch):
    monkeypatch.setenv("OSPORT_CACHE", str(tmp_path))


@pytest.fixture(scope="module")
def well(model_path):
    server = Server(model_path)
    yield server
    server.close()


def template_finding(url):
    (finding,) = [finding for finding in server_findings(url) if finding.area == "template"]
    return finding


def test_a_server_with_the_models_own_template_is_well(well):
    findings = diagnose(well.url)
    levels = {finding.area: finding.level for finding in findings}
    assert levels["template"] == levels["server"] == levels["model"] == "ok"
    assert levels["context"] == "note"  # 512 tokens of the 8192 that the model was trained with
    assert not [finding for finding in findings if finding.level == "problem"]


def test_a_server_with_another_template_is_found_out(model_path):
    server = Server(model_path, "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}")
    try:
        finding = template_finding(server.url)
    finally:
        server.close()
    assert finding.level == "problem"
    assert "does not use the template" in finding.what


def test_a_server_that_makes_a_template_up_is_found_out(model_path, tmp_path):
    raw = model_path.read_bytes()
    path = tmp_path / "base.gguf"
    path.write_bytes(raw.replace(b"tokenizer.chat_template", b"tokenizer.no_a_template", 1))
    server = Server(path)
    try:
        finding = template_finding(server.url)
    finally:
        server.close()
    assert finding.level == "problem"
    assert "made one up" in finding.what


def test_a_server_by_url_enforces_what_osport_asks_it_for(well):
    with Model(well.url) as model:
        probe = probe_constraints(model)
    results = {kind.kind: kind.result for kind in probe.kinds}
    assert results == {"json_schema": "enforced", "choice": "enforced", "grammar": "enforced", "regex": "refused"}


@pytest.mark.parametrize("backend", ["llama_server", "llama_cpp"])
def test_the_engines_that_osport_starts_enforce_every_kind(backend, model_path):
    pytest.importorskip("llama_cpp")
    with Model(f"{backend}:{model_path}", context=512, threads=1) as model:
        probe = probe_constraints(model, tries=2)
    assert {kind.result for kind in probe.kinds} == {"enforced"}, str(probe)
