"""Any server with OpenAI's routes, and OpenAI's own service."""

from __future__ import annotations

import re

from osport.backends._servers import ApiKey
from osport.backends.openai_compat import OpenAICompatBackend, ThinkingBy

__all__ = ["OpenAIBackend"]

VENDOR = "https://api.openai.com/v1"
# These draw their tokens as they please: the service answers a temperature with 400.
REASONING_MODELS = re.compile(r"o\d|gpt-[5-9]")


class OpenAIBackend(OpenAICompatBackend):
    """``openai:MODEL@http://host/v1``; without an URL the server in ``OPENAI_BASE_URL``, or api.openai.com.

    The key in ``OPENAI_API_KEY`` goes to api.openai.com and to the server in ``OPENAI_BASE_URL``; any other server
    gets the one that the callable ``api_key`` returns. ``timeout`` of one call (600 s).

    Of the sampling parameters only OpenAI's own are sent; ``top_k``, ``min_p`` and ``repeat_penalty`` stay what the
    server makes them, which matters only above temperature 0. OpenAI's reasoning models take ``max_tokens`` alone.
    """

    name = "openai"
    default_url = VENDOR
    key_variable = "OPENAI_API_KEY"
    url_variable = "OPENAI_BASE_URL"
    thinking_by: ThinkingBy = "reasoning_effort"

    def __init__(self, model: str, *, api_key: ApiKey | None = None, timeout: float = 600.0, **unknown: object) -> None:
        super().__init__(model, api_key=api_key, timeout=timeout, **unknown)
        if self._endpoint.url == VENDOR.removesuffix("/v1"):
            # Each of these differs between the service and those who speak like it.
            self.dialect = "openai"
            self.text_route = False
            self.sampling = {**self.sampling, "max_tokens": "max_completion_tokens"}
            if REASONING_MODELS.match(self.model):
                self.sampling = {"max_tokens": "max_completion_tokens"}
                self.logprobs = False
            else:
                self.thinking_by = ""
