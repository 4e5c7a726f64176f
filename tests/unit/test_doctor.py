import json
import signal
import sys
import tomllib
import types
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import metadata
from pathlib import Path
from threading import Thread

import pytest
from broken_backends import BROKEN
from click.testing import CliRunner
from whole_backend import Whole

from osport import Model, probe_constraints
from osport.cli import app
from osport.data import load
from osport.doctor import diagnose, packages
from osport.doctor.builds import build_findings
from osport.doctor.gpu import gpu_findings
from osport.doctor.packages import Build, asked_builds, package_findings
from osport.doctor.server import server_findings
from osport.plugin import BackendSpec, register
from osport.plugin.registry import registry

ROOT = Path(__file__).parents[2]
MODERN = frozenset({"pni", "ssse3", "avx", "avx2", "fma", "f16c", "bmi2"})


@pytest.fixture(autouse=True)
def _own_cache_and_registry(tmp_path, monkeypatch):
    monkeypatch.setenv("OSPORT_CACHE", str(tmp_path / "cache"))
    registry.cache_clear()
    yield
    registry.cache_clear()


def levels(findings, area):
    return [finding.level for finding in findings if finding.area == area]


def said(findings):
    return "\n".join(str(finding) for finding in findings)


# CPU


def built_with(*instructions):
    info = "CPU : " + "".join(f"{name} = 1 | " for name in instructions)
    return [Build("llama-cpp-python", "llama-cpp", "0.3.36", system_info=info)]


@pytest.mark.parametrize(
    ("instructions", "level", "words"),
    [
        (("SSE3", "SSSE3", "AVX", "AVX2", "FMA", "F16C", "BMI2"), "ok", "all that this CPU has"),
        (("SSE3", "SSSE3", "AVX", "AVX2", "FMA", "F16C"), "note", "built without BMI2"),
        (("SSE3", "SSSE3", "AVX", "F16C", "BMI2"), "problem", "built without AVX2, FMA"),
        (("AVX", "AVX2", "AVX512", "AVX512_VNNI"), "problem", "AVX512, AVX512_VNNI, which this CPU does not have"),
    ],
)
def test_a_build_is_compared_with_the_cpu(instructions, level, words):
    *_, finding = build_findings(built_with(*instructions), MODERN)
    assert finding.level == level
    assert words in finding.what
    assert finding.remedy or level == "ok"


def test_a_cpu_that_cannot_be_read_is_said_to_be_so():
    assert levels(build_findings(built_with("AVX2"), frozenset()), "cpu") == ["note"]


# packages


@pytest.fixture
def one_package(tmp_path, monkeypatch):
    """A table of one package, whose module holds this code."""

    def of(code, **row):
        (tmp_path / "made_engine.py").write_text(code)
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        table = {"osport": {"module": "made_engine", "extra": "made", "backends": ["made"], **row}}
        monkeypatch.setattr(packages, "load", lambda name: {"package": table})
        return asked_builds(None)

    return of


def test_what_an_engine_says_of_its_build_comes_from_a_process_of_its_own(one_package):
    code = "def info(): return b'CPU : AVX2 = 1 | '\ndef gpu(): return False\n"
    (build,) = one_package(code, system_info="info", gpu="gpu")
    assert (build.failure, build.system_info, build.gpu) == ("", "CPU : AVX2 = 1 | ", False)
    assert "made_engine" not in sys.modules


def test_a_wheel_for_another_cpu_is_a_finding_and_not_the_end(one_package):
    builds = one_package(f"import os; os.kill(os.getpid(), {int(signal.SIGILL)})")
    (finding,) = package_findings(builds, None)
    assert finding.level == "problem"
    assert "SIGILL: it was built for another CPU" in finding.what


def test_a_package_that_cannot_be_imported_says_why(one_package):
    (finding,) = package_findings(one_package("import libcuda_of_another_version"), None)
    assert finding.level == "problem"
    assert "No module named 'libcuda_of_another_version'" in finding.what


@pytest.mark.parametrize(
    ("version", "level"),
    [("0.2.1", "problem"), ("0.3.30", "ok"), ("0.3.36", "ok"), ("0.3.36+cpu", "ok"), ("0.3.37", "note"), ("", "note")],
)
def test_a_version_is_compared_with_the_tested_range(version, level):
    (finding,) = package_findings([Build("llama-cpp-python", "llama-cpp", version)], None)
    assert finding.level == level
    assert finding.remedy or level == "ok"


def test_a_missing_package_is_a_problem_for_the_backend_that_needs_it():
    (finding,) = package_findings([Build("vllm", "vllm")], "vllm")
    assert (finding.level, finding.remedy) == ("problem", "pip install 'osport[vllm]'")


def test_the_table_starts_where_the_extras_do():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for name, row in load("engines.toml")["package"].items():
        assert row["extra"] in metadata("osport").get_all("Provides-Extra")
        bounds = [r for r in extras[row["extra"]] if r.partition(">=")[0] == name]
        assert bounds, f"{name} is no part of the extra {row['extra']}"
        assert bounds[0].partition(">=")[2].partition(",")[0] == row["oldest"]


# GPU


def fake_nvml(error=None):
    """NVIDIA's library with one card, or with the error that it raises."""

    class NVMLError(Exception):
        pass

    def init():
        if error:
            raise NVMLError(error)

    return types.SimpleNamespace(
        NVMLError=NVMLError,
        nvmlInit=init,
        nvmlShutdown=lambda: None,
        nvmlSystemGetDriverVersion=lambda: "580.95.05",
        nvmlSystemGetCudaDriverVersion=lambda: 13010,
        nvmlDeviceGetCount=lambda: 1,
        nvmlDeviceGetHandleByIndex=lambda number: number,
        nvmlDeviceGetName=lambda card: "NVIDIA GeForce RTX 4090",
        nvmlDeviceGetMemoryInfo=lambda card: types.SimpleNamespace(free=20 << 30, total=24 << 30),
    )


def test_a_card_is_named_with_its_driver_and_an_engine_that_leaves_it_idle(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", fake_nvml())
    card, engine = gpu_findings([Build("llama-cpp-python", "llama-cpp", "0.3.36", gpu=False)])
    assert card.level == "ok"
    assert "RTX 4090" in card.where
    assert "driver 580.95.05, CUDA 13.1" in card.what
    assert engine.level == "problem"
    assert "GGML_CUDA" in engine.remedy


def test_a_driver_that_is_loaded_and_does_not_answer_is_a_problem(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "pynvml", fake_nvml("Driver/library version mismatch"))
    assert levels(gpu_findings([]), "gpu") == ["ok"]  # no driver at all
    (tmp_path / "version").touch()
    monkeypatch.setattr("osport.doctor.gpu.KERNEL_DRIVER", tmp_path / "version")
    (finding,) = gpu_findings([])
    assert finding.level == "problem"
    assert "version mismatch" in finding.what


# servers


@pytest.fixture
def fake_server():
    """A function that starts a fake which answers these routes with JSON, or with a bare status."""
    servers = []

    def start(routes):
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                answer = routes.get(self.path, 404)
                self.send_response(answer if isinstance(answer, int) else 200)
                self.end_headers()
                self.wfile.write(b"" if isinstance(answer, int) else json.dumps(answer).encode())

            do_POST = do_GET  # noqa: N815 - http.server's own naming

            def log_message(self, *_):
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_address[1]}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_a_server_that_is_not_there_is_a_problem():
    (finding,) = server_findings("http://127.0.0.1:9")
    assert finding.level == "problem"
    assert "does not answer" in finding.what


def test_a_llama_server_with_less_context_than_trained(fake_server):
    url = fake_server(
        {
            "/props": {"default_generation_settings": {"n_ctx": 2048}, "total_slots": 2, "build_info": "b11434"},
            "/v1/models": {"data": [{"id": "x", "meta": {"n_ctx_train": 8192}}]},
        }
    )
    findings = list(server_findings(f"{url}/v1"))
    assert levels(findings, "context") == ["note"]
    assert "-c 16384" in said(findings)
    assert "b11434" in said(findings)
    assert levels(findings, "template") == ["note"]  # the file is elsewhere


def test_an_ollama_server_that_would_cut_prompts(fake_server):
    url = fake_server(
        {
            "/api/version": {"version": "0.12.3"},
            "/api/ps": {"models": [{"name": "qwen3:8b", "context_length": 4096}]},
            "/api/show": {"model_info": {"qwen3.context_length": 40960}},
        }
    )
    findings = list(server_findings(url, model="qwen3:8b"))
    assert levels(findings, "context") == ["problem"]
    assert "4096" in said(findings)
    assert "num_ctx" in said(findings)
    assert levels(list(server_findings(url, model="gemma3:1b")), "context") == ["note"]


def test_other_servers_are_recognised(fake_server):
    assert "vLLM 0.32.0" in said(server_findings(fake_server({"/version": {"version": "0.32.0"}})))
    assert "serving gpt-oss" in said(server_findings(fake_server({"/v1/models": {"data": [{"id": "gpt-oss"}]}})))
    locked = list(server_findings(fake_server({"/v1/models": 401, "/version": 401})))
    assert levels(locked, "server") == ["note"]
    assert "wants a key" in said(locked)


# a model


def test_a_reference_that_is_none_is_the_only_finding():
    (finding,) = diagnose("no such reference")
    assert (finding.level, finding.area) == ("problem", "reference")


@pytest.mark.parametrize("reference", ["openai:m@http://u:secret@127.0.0.1:9/v1", "http://u:1234@127.0.0.1:9"])
def test_a_password_in_a_url_is_used_for_nothing_and_not_shown(reference):
    findings = diagnose(reference)
    assert levels(findings, "model") == ["problem"]
    assert levels(findings, "server") == []
    assert "no credentials in the URL" in said(findings)
    everything = "".join(map(str, findings))
    assert "secret" not in everything
    assert "1234" not in everything


def test_a_url_that_is_none_is_a_problem():
    (finding,) = server_findings("http://127.0.0.1:99999")
    assert finding.level == "problem"


def test_a_model_that_is_not_there_is_a_problem(tmp_path):
    findings = diagnose(f"llama_server:{tmp_path / 'none.gguf'}")
    assert levels(findings, "model") == ["problem"]
    assert "does not exist" in said(findings)


@pytest.mark.parametrize(
    ("backend", "level"),
    [(Whole, "ok"), (dict(BROKEN)["test_a_form_is_kept_or_refused"], "problem")],
    ids=["true", "lying"],
)
def test_what_a_probe_found_is_shown(backend, level):
    register(BackendSpec("made", backend, backend.features))
    assert levels(diagnose("made:x"), "probe") == ["note"]
    assert "osport probe made:x" in said(diagnose("made:x"))
    probe_constraints(Model("made:x"))
    assert levels(diagnose("made:x"), "probe") == [level] * 4


@pytest.mark.parametrize(("reference", "code"), [("echo:", 0), ("nobody:x", 1)])
def test_the_exit_code_tells_whether_there_is_a_problem(reference, code):
    run = CliRunner().invoke(app, ["doctor", reference, "--json"])
    assert run.exit_code == code, run.output
    found = json.loads(run.output)
    assert found["ok"] is (code == 0)
    assert all(row["what"] and row["where"] for row in found["findings"])
    people = CliRunner().invoke(app, ["doctor", reference])
    assert people.exit_code == code
    assert f"{code} problem(s)" in people.output
