"""A reader that wants a stream only when it is whole sleeps until then. The server is a fake that drips."""

from __future__ import annotations

import asyncio
import json
import socket
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from osport.backends._http_client import Endpoint, HttpClient
from osport.core.deadline import Deadline
from osport.errors import BackendError

pytest.importorskip("httpx")
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SO_RCVLOWAT")

PIECES = 20
READS = {"sync": "httpcore._backends.sync.SyncStream.read", "async": "httpcore._backends.anyio.AnyIOStream.read"}


class Drips(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.send_header("Connection", self.server.connection)
        self.end_headers()
        for number in range(PIECES):
            self.chunk(f"data: {json.dumps({'number': number})}\n\n")
            time.sleep(0.02)
        self.chunk("data: [DONE]\n\n")
        self.chunk("")

    def chunk(self, text: str) -> None:
        self.wfile.write(f"{len(text):x}\r\n{text}\r\n".encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def drips():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Drips)
    server.connection = "close"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def numbers_read(way: str, server: ThreadingHTTPServer, *, at_once: bool) -> list[int]:
    endpoint = Endpoint(f"http://127.0.0.1:{server.server_address[1]}")
    asked = {"deadline": Deadline.after(5), "at_once": at_once}

    async def all_of(client: HttpClient) -> list[int]:
        return [piece["number"] async for piece in client.aevents(endpoint, "/", {}, **asked)]

    with HttpClient("fake", "m", extra="openai") as client:
        if way == "async":
            return asyncio.run(all_of(client))
        return [piece["number"] for piece in client.events(endpoint, "/", {}, **asked)]


@pytest.fixture
def reads(monkeypatch, request):
    """How often the way that the test names was woken with bytes."""
    counted = []
    where = READS[request.getfixturevalue("way")]
    module, _, method = where.rpartition(".")
    module, _, owner = module.rpartition(".")
    stream = getattr(pytest.importorskip(module), owner)
    before = getattr(stream, method)

    def counting(*given, **options):
        counted.append(1)
        return before(*given, **options)

    monkeypatch.setattr(stream, method, counting)
    return counted


@pytest.mark.parametrize("way", READS)
def test_the_reader_sleeps_until_the_end(way, drips, reads):
    assert numbers_read(way, drips, at_once=True) == list(range(PIECES))
    # Headers, whatever came with them, and the rest.
    assert len(reads) <= 4


@pytest.mark.parametrize("way", READS)
def test_a_stream_is_read_piece_by_piece(way, drips, reads):
    assert numbers_read(way, drips, at_once=False) == list(range(PIECES))
    assert len(reads) >= PIECES


@pytest.mark.parametrize("way", READS)
def test_a_connection_that_stays_open_is_not_waited_for(way, drips):
    drips.connection = "keep-alive"
    assert numbers_read(way, drips, at_once=True) == list(range(PIECES))


@pytest.mark.parametrize("way", READS)
def test_a_server_that_dies_half_way_ends_the_wait(way, drips, monkeypatch):
    def die(handler: Drips, text: str) -> None:
        if '"number": 3' in text:
            handler.connection.shutdown(socket.SHUT_RDWR)
            raise ConnectionAbortedError
        chunk(handler, text)

    chunk = Drips.chunk
    monkeypatch.setattr(Drips, "chunk", die)
    monkeypatch.setattr(drips, "handle_error", lambda *_: None)
    began = time.monotonic()
    with pytest.raises(BackendError):
        numbers_read(way, drips, at_once=True)
    assert time.monotonic() - began < 4, "the deadline ended it, not the server"
