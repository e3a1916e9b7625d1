"""A moto server on loopback, and a proxy before it that answers as networks and busy stores do."""

from __future__ import annotations

import contextlib
import http.client
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal
from urllib.parse import urlsplit

BUSY = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
DENIED = b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"


@dataclass
class Fault:
    """What happens to requests that match: `times` of them, behind the first `after`."""

    kind: Literal["busy", "denied", "cut", "slow", "stall"]
    match: str  # of "METHOD /bucket/key?query"
    times: float = 1
    after: int = 0
    met: int = 0


@dataclass
class Proxy:
    """Forwards requests to a server; use it in a `with` block."""

    server: str
    faults: list[Fault] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __enter__(self) -> Proxy:
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (_Handler,), {"proxy": self}))
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_port}"
        threading.Thread(target=self._http.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()

    def matching(self, pattern: str) -> list[str]:
        """The requests so far that match."""
        return [request for request in self.requests if re.search(pattern, request)]

    def fault_of(self, request: str) -> str | None:
        """What is to happen to a request."""
        with self.lock:
            self.requests.append(request)
            for fault in self.faults:
                if re.search(fault.match, request):
                    fault.met += 1
                    if fault.after < fault.met <= fault.after + fault.times:
                        return fault.kind
        return None


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    proxy: Proxy

    def do_any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        kind = self.proxy.fault_of(f"{self.command} {self.path}")
        if kind == "stall":
            time.sleep(20)
            self.close_connection = True
            return
        if kind in ("busy", "denied"):
            self._answer(
                503 if kind == "busy" else 403, {"Content-Type": "application/xml"}, BUSY if kind == "busy" else DENIED
            )
            return
        there = http.client.HTTPConnection(urlsplit(self.proxy.server).netloc, timeout=60)
        with contextlib.closing(there):
            headers = dict(self.headers)
            if headers.pop("x-goog-if-generation-match", None) == "0":  # as Google's store has it
                headers["If-None-Match"] = "*"
            if headers.get("Authorization", "").startswith("Bearer"):  # which moto takes for another account's
                del headers["Authorization"]
            there.request(self.command, self.path, body, headers)
            answer = there.getresponse()
            data = answer.read()
        kept = {name: value for name, value in answer.getheaders() if name not in ("Transfer-Encoding", "Connection")}
        if kind == "cut" and self.command == "PUT":  # it was done, and nobody hears of it
            self.close_connection = True
            return
        self._answer(answer.status, {"Content-Length": str(len(data))} | kept, data, kind)

    def _answer(self, status: int, headers: dict[str, str], data: bytes, kind: str | None = None) -> None:
        self.send_response_only(status)
        for name, value in ({"Content-Length": str(len(data))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        if kind == "cut":
            self.wfile.write(data[: len(data) // 2])
            self.wfile.flush()
            self.connection.close()
            self.close_connection = True
        elif kind == "slow":
            for start in range(0, len(data), max(len(data) // 8, 1)):
                self.wfile.write(data[start : start + max(len(data) // 8, 1)])
                self.wfile.flush()
                time.sleep(0.1)
        else:
            self.wfile.write(data)

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = do_any  # noqa: N815

    def log_message(self, *_: object) -> None:
        pass

    def handle_one_request(self) -> None:
        with contextlib.suppress(OSError):
            super().handle_one_request()
            return
        self.close_connection = True


@contextlib.contextmanager
def moto() -> Iterator[str]:
    """Run a moto server; its URL."""
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until = time.monotonic() + 60
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            assert time.monotonic() < until, "the moto server does not start"
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait()
