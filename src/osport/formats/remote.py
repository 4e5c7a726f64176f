"""Headers over HTTP ranges: only the beginning of a file is fetched."""

from __future__ import annotations

import re
import urllib.error
import urllib.request

from osport.errors import FormatError, StorageError, UsageError
from osport.formats.gguf import GgufHeader, GgufTruncated
from osport.formats.safetensors import SafetensorsHeader, parse_header

__all__ = ["fetch_gguf", "fetch_safetensors"]

_FIRST = 2**20
_MOST = 32 * 2**20
_TIMEOUT = 30.0


def fetch_gguf(url: str) -> GgufHeader:
    """Read a GGUF header from ``http(s)://``, fetching 1 MiB first and doubling up to 32 MiB.

    Raises StorageError when the server cannot be read, FormatError when what it sends is not GGUF.
    """
    count = _FIRST
    while True:
        data, total = _beginning(url, count)
        try:
            return GgufHeader.parse(data, file_size=total, name=url)
        except GgufTruncated as error:
            if len(data) < count or count >= _MOST:
                raise FormatError(f"{url}: no complete GGUF header within the first {len(data)} bytes") from error
            count = min(_MOST, max(count * 2, min(error.needed, _MOST)))


def fetch_safetensors(url: str) -> SafetensorsHeader:
    """Read a safetensors header from ``http(s)://``. Raises like :func:`fetch_gguf`."""
    head, total = _beginning(url, 8)
    length = int.from_bytes(head[:8], "little")
    if len(head) < 8 or length > 4 * 2**20:
        raise FormatError(f"{url}: claims a safetensors header of {length} bytes")
    data, total = _beginning(url, 8 + length)
    if len(data) < 8 + length:
        raise FormatError(f"{url}: ends inside its header at byte {len(data)}")
    return parse_header(data[8 : 8 + length], None if total is None else total - 8 - length, url)


def _beginning(url: str, count: int) -> tuple[bytes, int | None]:
    """The first ``count`` bytes and the length of the whole, also from a server that ignores ranges."""
    if not url.startswith(("http://", "https://")):
        raise UsageError(f"{url}: only http:// and https:// can be fetched")
    request = urllib.request.Request(url, headers={"Range": f"bytes=0-{count - 1}"})  # noqa: S310 - scheme checked
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT) as response:  # noqa: S310 - scheme checked
            ranged = re.fullmatch(r"bytes \d+-\d+/(\d+)", response.headers.get("Content-Range", ""))
            length = ranged.group(1) if ranged else response.headers.get("Content-Length")
            return response.read(count), int(length) if length and length.isdigit() else None
    except (urllib.error.URLError, OSError, ValueError) as error:
        raise StorageError(f"{url}: cannot be fetched: {error}") from error
