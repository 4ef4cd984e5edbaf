"""A proxy before a server of HTTP, which answers as a bad day's network and a busy store do."""

from __future__ import annotations

import http.client
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal
from urllib.parse import urlsplit

Fault = Literal["500", "503", "torn", "lost", "slow"]
FAULTS: tuple[Fault, ...] = ("500", "503", "torn", "lost", "slow")
SLOW_SECONDS = 0.3
_CODES = {"500": "InternalError", "503": "SlowDown"}
_OF_THE_CONNECTION = {"connection", "keep-alive", "transfer-encoding", "server", "date"}


class FaultyProxy:
    """Passes requests on; `choose(method, path)` says what goes wrong with each, or None.

    `500`, `503`: not passed on, and answered so. `torn`: half of the answer, then the end of the connection. `lost`:
    the request is carried out, and nothing is answered. `slow`: answered after a while. `seen` counts what was done.
    """

    def __init__(self, target: str, choose: Callable[[str, str], Fault | None]) -> None:
        self.choose = choose
        self.seen: Counter[str] = Counter()
        self._target = urlsplit(target).netloc
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_one_request(self) -> None:
                self.raw_requestline = self.rfile.readline(65537)
                if not self.raw_requestline or not self.parse_request():
                    self.close_connection = True
                    return
                proxy._answer(self)
                self.wfile.flush()

            def log_message(self, format: str, *args: object) -> None: ...

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request: object, client_address: object) -> None: ...  # a client that was killed

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _answer(self, request: BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers.get("Content-Length") or 0))
        fault = self.choose(request.command, request.path)
        self.seen[fault or "well"] += 1
        if fault in _CODES:
            text = f"<Error><Code>{_CODES[fault]}</Code><Message>on a bad day</Message></Error>".encode()
            _send(request, int(fault), [], text)
            return
        if fault == "slow":
            time.sleep(SLOW_SECONDS)
        connection = http.client.HTTPConnection(self._target, timeout=60)
        connection.request(request.command, request.path, body, dict(request.headers))
        answer = connection.getresponse()
        data = answer.read()
        connection.close()
        if fault == "lost":
            request.close_connection = True
        else:
            _send(request, answer.status, answer.getheaders(), data, torn=fault == "torn")


def at_random(share: float, seed: int = 0, faults: tuple[Fault, ...] = FAULTS) -> Callable[[str, str], Fault | None]:
    """Faults of all kinds for a share of the requests."""
    random_, lock = random.Random(seed), threading.Lock()

    def choose(method: str, path: str) -> Fault | None:
        with lock:
            return random_.choice(faults) if random_.random() < share else None

    return choose


def _send(
    request: BaseHTTPRequestHandler, status: int, headers: list[tuple[str, str]], data: bytes, torn: bool = False
) -> None:
    request.send_response(status)
    for name, value in headers:
        if name.lower() not in _OF_THE_CONNECTION and not (data and name.lower() == "content-length"):
            request.send_header(name, value)
    if data or not any(name.lower() == "content-length" for name, _ in headers):
        request.send_header("Content-Length", str(len(data)))
    request.end_headers()
    if request.command != "HEAD":
        request.wfile.write(data[: len(data) // 2] if torn else data)
    if torn:
        request.close_connection = True
