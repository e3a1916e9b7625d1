"""What of Azure's blob service obstore asks, in memory: blobs, blocks, conditions, lists and batches of deletions."""

from __future__ import annotations

import contextlib
import hashlib
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

WHEN = "Fri, 09 Oct 2026 21:50:14 GMT"  # of all blobs, as their etags tell versions apart
ACCOUNT = "account"


@dataclass
class Blobs:
    """The blobs of an account by `/container/name`, and the blocks that are not yet of one."""

    blobs: dict[str, bytes] = field(default_factory=dict)
    blocks: dict[tuple[str, str], bytes] = field(default_factory=dict)


def etag_of(data: bytes) -> str:
    return f'"{hashlib.sha256(data).hexdigest()[:16]}"'


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    store: Blobs

    def do_any(self) -> None:
        address = urlsplit(self.path)
        asked = {name: values[0] for name, values in parse_qs(address.query, keep_blank_values=True).items()}
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = unquote(address.path).removeprefix(f"/{ACCOUNT}")
        match self.command, asked.get("comp"):
            case "GET", "list":
                self._list(path, asked)
            case "POST", "batch":
                self._delete_all(body)
            case "PUT", "block":
                self.store.blocks[path, asked["blockid"]] = body
                self._answer(201)
            case "PUT", "blocklist":
                names = re.findall(r"<Uncommitted>(.*?)</Uncommitted>", body.decode())
                self._put(path, b"".join(self.store.blocks.pop((path, name)) for name in names))
            case "PUT", None:
                self._put(path, body)
            case "GET" | "HEAD", None:
                self._get(path)
            case _:
                self._answer(400, b"<Error><Code>UnsupportedHere</Code></Error>")

    def _put(self, path: str, data: bytes) -> None:
        if self.headers.get("If-None-Match") == "*" and path in self.store.blobs:
            self._answer(409, b"<Error><Code>BlobAlreadyExists</Code></Error>")
            return
        self.store.blobs[path] = data
        self._answer(201, ETag=etag_of(data))

    def _get(self, path: str) -> None:
        data = self.store.blobs.get(path)
        if data is None:
            self._answer(404, b"<Error><Code>BlobNotFound</Code></Error>")
        elif self.headers.get("If-Match", etag_of(data)) != etag_of(data):
            self._answer(412, b"<Error><Code>ConditionNotMet</Code></Error>")
        elif found := re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", "")):
            start, last = int(found[1]), min(int(found[2]), len(data) - 1)
            within = {"Content-Range": f"bytes {start}-{last}/{len(data)}", "ETag": etag_of(data)}
            self._answer(206, data[start : last + 1], **within)
        else:
            self._answer(200, data, ETag=etag_of(data))

    def _list(self, container: str, asked: dict[str, str]) -> None:
        start, found = f"{container}/{asked.get('prefix', '')}", []
        for path, data in sorted(self.store.blobs.items()):
            if path.startswith(start) and not (asked.get("delimiter") and "/" in path[len(start) :]):
                properties = f"<Last-Modified>{WHEN}</Last-Modified><Etag>{escape(etag_of(data))}</Etag>"
                properties += f"<Content-Length>{len(data)}</Content-Length><Content-Type>text/plain</Content-Type>"
                name = escape(path[len(container) + 1 :])
                found.append(f"<Blob><Name>{name}</Name><Properties>{properties}</Properties></Blob>")
        blobs = f"<Blobs>{''.join(found)}</Blobs><NextMarker/>"
        self._answer(200, f"<EnumerationResults>{blobs}</EnumerationResults>".encode())

    def _delete_all(self, body: bytes) -> None:
        boundary, parts = "batchresponse", []
        for number, address in enumerate(re.findall(r"DELETE (\S+) HTTP", body.decode())):
            gone = self.store.blobs.pop(unquote(urlsplit(address).path).removeprefix(f"/{ACCOUNT}"), None)
            status = "202 Accepted" if gone is not None else "404 The specified blob does not exist."
            head = f"--{boundary}\r\nContent-Type: application/http\r\nContent-ID: {number}\r\n\r\n"
            parts.append(f"{head}HTTP/1.1 {status}\r\nx-ms-version: 2018-11-09\r\n\r\n")
        kind = f"multipart/mixed; boundary={boundary}"
        self._answer(202, f"{''.join(parts)}--{boundary}--\r\n".encode(), **{"Content-Type": kind})

    def _answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response_only(status)
        for name, value in ({"Content-Length": str(len(body)), "Last-Modified": WHEN} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_PUT = do_POST = do_HEAD = do_any  # noqa: N815

    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def blob_service() -> Iterator[tuple[str, Blobs]]:
    """Run the service on loopback; its URL, and what it holds."""
    store = Blobs()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (_Handler,), {"store": store}))
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", store
    finally:
        server.shutdown()
        server.server_close()
