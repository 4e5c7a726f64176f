"""A server by its URL: does it answer, what is it, how long may a prompt be, and whose chat template does it use."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from osport.chat_template import ChatTemplate
from osport.doctor.finding import Finding
from osport.errors import OsportError, TemplateError

__all__ = ["server_findings"]

SECONDS = 5.0


def server_findings(url: str, *, model: str = "") -> Iterator[Finding]:
    """What the server tells of itself to anybody: no key is sent, no redirect followed, nothing asked of a model."""
    try:
        import httpx
    except ImportError:
        what = "cannot be looked at: httpx is not installed"
        yield Finding("problem", "server", url, what, "pip install 'osport[llama-server]'")
        return
    base = url.rstrip("/").removesuffix("/v1")
    try:
        with httpx.Client(base_url=base, timeout=SECONDS, follow_redirects=False) as client:
            client.get("/")
            yield from _Server(client, base, model).findings()
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        yield Finding(
            "problem", "server", base, f"does not answer: {error or type(error).__name__}",
            "start it; check host and port, the proxy variables, and the certificate for https",
        )  # fmt: skip


class _Server:
    def __init__(self, client: Any, base: str, model: str) -> None:
        self._client = client
        self._base = base
        self._model = model
        self._locked = False

    def findings(self) -> Iterator[Finding]:
        """By what only one kind of server answers to."""
        if "default_generation_settings" in (props := self._get("/props")):
            yield from self._llama_cpp(props)
        elif "version" in (ollama := self._get("/api/version")):
            yield from self._ollama(str(ollama["version"]))
        elif "version" in (vllm := self._get("/version")):
            yield Finding("ok", "server", self._base, f"vLLM {vllm['version']}, {self._models()}")
        elif self._locked:
            what = "answers, and wants a key before it tells anything; osport doctor sends none"
            yield Finding("note", "server", self._base, what, "the checks of the model below use the backend's own key")
        else:
            yield Finding("ok", "server", self._base, f"answers, {self._models()}")

    def _llama_cpp(self, props: Mapping[str, Any]) -> Iterator[Finding]:
        slots = props.get("total_slots")
        build = props.get("build_info") or "of an unknown build"
        yield Finding("ok", "server", self._base, f"llama.cpp's server {build}, slots: {slots}")
        context = (props["default_generation_settings"] or {}).get("n_ctx")
        served = self._get("/v1/models").get("data") or [{}]
        trained = (served[0].get("meta") or {}).get("n_ctx_train")
        if context and trained and context < trained:
            yield Finding(
                "note", "context", self._base,
                f"a prompt and its answer may have {context} tokens; the model was trained with {trained}",
                f"start the server with -c {trained * (slots or 1)} (or -c 0 -np 1), where the memory allows it",
            )  # fmt: skip
        elif context:
            yield Finding("ok", "context", self._base, f"{context} tokens for prompt and answer, trained: {trained}")
        yield self._template(props)

    def _template(self, props: Mapping[str, Any]) -> Finding:
        path, used = Path(str(props.get("model_path") or "")), props.get("chat_template") or ""
        if path.suffix != ".gguf" or not path.is_file():
            what = "the server's model file is not on this machine, so its own template cannot be compared"
            remedy = f"where the file is: osport template diff {self._base} FILE.gguf"
            return Finding("note", "template", self._base, what, remedy)
        try:
            own = ChatTemplate.from_gguf(path).text
        except TemplateError:
            if not used:
                return Finding("ok", "template", self._base, "the model has no chat template, and the server uses none")
            what = f"{path.name} has no chat template, and the server made one up"
            return Finding("problem", "template", self._base, what, "send raw prompts, or take an instruction model")
        except OsportError as error:
            return Finding("note", "template", self._base, f"{path} cannot be read: {error}")
        if own.strip() != used.strip():
            what = f"the server does not use the template of {path.name}, but another one"
            remedy = f"see osport template diff {self._base} {path}; start the server without --chat-template"
            return Finding("problem", "template", self._base, what, remedy)
        return Finding("ok", "template", self._base, "the server uses the model's own")

    def _ollama(self, version: str) -> Iterator[Finding]:
        yield Finding("ok", "server", self._base, f"Ollama {version}")
        loaded = {row.get("name"): row.get("context_length") for row in self._get("/api/ps").get("models") or ()}
        name = next((n for n in loaded if n in (self._model, f"{self._model}:latest")), None)
        remedy = "set OLLAMA_CONTEXT_LENGTH where the server runs, or options.num_ctx in every request"
        if name is None or not loaded[name]:
            who = self._model or "the model"
            what = f"{who} is not loaded, so its context is not known; Ollama's default can be 4096 tokens"
            yield Finding("note", "context", self._base, what, remedy)
            return
        info = self._post("/api/show", {"model": name}).get("model_info") or {}
        trained = next((value for key, value in info.items() if key.endswith(".context_length")), None)
        what = f"{name} is loaded with {loaded[name]} tokens of context, trained: {trained}"
        if trained and loaded[name] < trained:
            what += "; Ollama cuts longer prompts without a word"
            yield Finding("problem", "context", self._base, what, remedy)
        else:
            yield Finding("ok", "context", self._base, what)

    def _models(self) -> str:
        names = [str(row.get("id")) for row in self._get("/v1/models").get("data") or ()]
        return f"serving {', '.join(names)}" if names else "and lists no models"

    def _get(self, path: str) -> dict[str, Any]:
        return self._json("GET", path)

    def _post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        return self._json("POST", path, json=body)

    def _json(self, method: str, path: str, **body: Any) -> dict[str, Any]:
        """The object that the route gives; empty where it gives none."""
        import httpx

        try:
            answer = self._client.request(method, path, **body)
            self._locked = self._locked or answer.status_code in (401, 403)
            value = answer.json() if answer.is_success else {}
        except (httpx.HTTPError, ValueError):
            return {}
        return value if isinstance(value, dict) else {}
