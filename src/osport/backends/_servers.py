"""Which server a reference names, and which key may go there.

A key of the environment goes to the vendor's own host, or to the one that the environment names beside it; for any
other host the caller gives a callable together with the URL. So a URL that stands in a file which somebody else
wrote gets no key that was not meant for it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from urllib.parse import urlsplit

from osport.backends._http_client import Endpoint
from osport.core.secrets import shown_url
from osport.errors import UsageError

__all__ = ["ApiKey", "checked_key", "endpoint_of", "server_url", "split_reference"]

ApiKey = Callable[[], str]
PORTS = {"http": 80, "https": 443}
HOST = re.compile(r"[\w.:%~-]+", re.ASCII)


def split_reference(model: str) -> tuple[str, str | None]:
    """``NAME@http://host`` as name and URL; the URL is None where the reference has none."""
    name, url = re.fullmatch(r"(.*?)(?:@(https?://.*))?", model, re.DOTALL).groups()  # type: ignore[union-attr]
    return name, url


def server_url(backend: str, url: str, *, said_by: str = "") -> str:
    """The base of all routes, without ``/v1``. A key never stands in a URL, for URLs stand in messages and records.

    ``said_by``: the environment variable that holds the URL.
    """
    where = f"{backend}: {said_by + ': ' if said_by else ''}"
    if "@" in re.split(r"[/?#]", url.partition("://")[2], maxsplit=1)[0]:
        raise UsageError(f"{where}no credentials in the URL; give api_key, a callable that returns the key")
    if not _usable(url):
        raise UsageError(f"{where}{shown_url(url)!r} is not the URL of a server; write http://host:port")
    return url.rstrip("/").removesuffix("/v1").rstrip("/")


def _usable(url: str) -> bool:
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        if not host.isascii():
            import idna

            host = idna.encode(host).decode()
        there = parts.scheme in PORTS and HOST.fullmatch(host) and (parts.port is None or parts.port > 0)
        return bool(there) and url.isprintable() and " " not in url and not parts.query and not parts.fragment
    except ValueError:
        return False


def endpoint_of(
    backend: str,
    url: str,
    *,
    api_key: ApiKey | None,
    key_variable: str,
    url_variable: str,
    named: str | None,
    vendor: str | None,
) -> Endpoint:
    """The server with the key that may go there.

    ``api_key``: a callable given together with the URL. Else the environment variable ``key_variable`` is used
    where the URL is the ``vendor``'s or the one ``named`` in ``url_variable``: the same scheme, host and port.
    """
    if api_key is not None:
        return Endpoint(url, checked_key(backend, api_key))
    key = (os.environ.get(key_variable) or None) if key_variable else None
    if key is None:
        return Endpoint(url)
    if _origin(url) in [_origin(allowed) for allowed in (vendor, named) if allowed is not None]:
        return Endpoint(url, _key(backend, f"{key_variable} holds", key))
    return Endpoint(
        url,
        withheld=f"The key in {key_variable} was not sent: nobody named it together with this host. "
        f"Set {url_variable} to the URL of the server, or give api_key, a callable that returns the key",
    )


def checked_key(backend: str, api_key: object) -> str:
    """What the callable returns, if it is one and returns a key."""
    if not callable(api_key):
        raise UsageError(f"{backend}: api_key must be a callable that returns the key, so that no key stands in code")
    return _key(backend, "api_key() returned", api_key())


def _key(backend: str, source: str, key: object) -> str:
    if not isinstance(key, str) or not key or not key.isascii() or any(c.isspace() for c in key):
        raise UsageError(f"{backend}: {source} no key (ASCII without white space)")
    return key


def _origin(url: str) -> tuple[str, str | None, int | None]:
    try:
        parts = urlsplit(url)
        return parts.scheme, parts.hostname, parts.port or PORTS.get(parts.scheme)
    except ValueError:
        return url, None, None
