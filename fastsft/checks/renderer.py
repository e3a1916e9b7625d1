"""Have rows rendered by a process of its own, as a chat template is a program that a stranger wrote.

jinja2's sandbox keeps it from files and from Python, not from a loop without an end or from `'x' * 10**12`, and either
may be met while the template is compiled. So the process has a limit of memory, and a clock that ends it; what it was
at is told, and the next row finds a new one. A row costs 0.1 ms more than in this process.
"""

from __future__ import annotations

import os
import resource
import signal
import struct
import subprocess
import sys
import threading
import time
from functools import lru_cache
from typing import IO, Any

import msgspec

from fastsft.checks.rendering import ChatTemplate, Rendering
from fastsft.errors import UsageError

MOST_NBYTES = 4 * 1024**3  # of address space: a tokenizer of 250,000 tokens takes 0.5 GB
_LENGTH = struct.Struct("<QB")  # of a row, and what is wanted of it
_TOKENS, _FINDINGS, _PIECES = range(3)  # each but the last with what is before it
_SECONDS_BETWEEN_LOOKS = 0.5  # at whether the one that asks still lives
_START = "import sys; sys.path[:] = sys.argv[4:]; from fastsft.checks.renderer import serve; serve(*sys.argv[1:4])"


class _Began(msgspec.Struct):
    """How the process began: whether it counts tokens, or why the template cannot be used."""

    counts_tokens: bool = False
    problem: str | None = None


_encode = msgspec.json.Encoder().encode
_rendering = msgspec.json.Decoder(Rendering)
_began = msgspec.json.Decoder(_Began)


class Renderer:
    """A template in a process of its own, which begins when it is first asked something.

    Args:
        path: Where the template is.
        seconds: How long it may take to begin, and for one row.
    """

    def __init__(self, path: str, seconds: float) -> None:
        self._path = path
        self._seconds = seconds
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()  # workers may be threads, as Dask's are, and share it
        self.counts_tokens = self._begin()

    def render(self, row: bytes, *, finds: bool) -> Rendering:
        """Render an encoded row, and count its tokens where there is a tokenizer; with `finds`, find what it loses.

        Raises:
            UsageError: The template is no longer what it was.
        """
        return self._render(row, _FINDINGS if finds else _TOKENS)

    def cut(self, row: bytes) -> Rendering:
        """Render an encoded row turn by turn: its `pieces`, or why there are none.

        Raises:
            UsageError: The template is no longer what it was.
        """
        return self._render(row, _PIECES)

    def _render(self, row: bytes, wanted: int) -> Rendering:
        with self._lock:
            if self._process is None:
                self._begin()
            answer = self._ask(_LENGTH.pack(len(row), wanted), row)
            found = Rendering(beyond=self._why_it_ended()) if answer is None else _rendering.decode(answer)
            if found.beyond:
                self.close()  # what it holds is of no use any more
            return found

    def close(self) -> None:
        """End the process; harmless the second time."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe:
                    pipe.close()

    def __del__(self) -> None:
        self.close()

    def _begin(self) -> bool:
        words = [sys.executable, "-c", _START, self._path, str(self._seconds), str(os.getpid()), *sys.path]
        try:
            self._process = subprocess.Popen(
                words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0
            )
        except OSError as error:
            raise UsageError(f"cannot start a process that renders rows: {error.strerror}") from None
        answer = self._ask()
        if answer is None:
            why = self._why_it_ended()
            self.close()
            raise UsageError(f"the template {self._path} cannot be read: it {why}")
        began = _began.decode(answer)
        if began.problem is not None:
            self.close()
            raise UsageError(began.problem)
        return began.counts_tokens

    def _ask(self, *data: bytes) -> bytes | None:
        """Send what is asked, and return the answer; None where the process has ended."""
        assert self._process is not None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            for piece in data:
                _write(self._process.stdin, piece)
            length, _ = _LENGTH.unpack(_read(self._process.stdout, _LENGTH.size))
            return _read(self._process.stdout, length)
        except (OSError, EOFError):
            return None

    def _why_it_ended(self) -> str:
        assert self._process is not None
        code = self._process.wait()
        if code == -signal.SIGALRM:
            return f"takes more than {self._seconds:g} s (--render-seconds)"
        return f"ended its process (exit code {code}), perhaps for lack of memory"


@lru_cache(maxsize=1)
def _renderer_at(path: str, seconds: float, _: int) -> Renderer:
    return Renderer(path, seconds)


def renderer_at(path: str, seconds: float) -> Renderer:
    """Return this process's renderer of a template, which goes on from row to row.

    Raises:
        UsageError: The template cannot be used.
    """
    return _renderer_at(path, seconds, os.getpid())  # one that a forked process finds there is its parent's


def end_renderer() -> None:
    """End this process's renderer, if it has one."""
    _renderer_at.cache_clear()  # which was the last that knew it


def check_template(path: str, seconds: float, *, counting: bool) -> None:
    """Make sure that there is a template at a path, as it is now, and with `counting` a tokenizer.

    Raises:
        UsageError: There is none.
    """
    end_renderer()
    if not renderer_at(path, seconds).counts_tokens and counting:
        raise UsageError(f"{path} has no tokenizer.json to count tokens with; name the folder of a tokenizer")


def serve(path: str, seconds: str, parent: str) -> None:
    """Render rows that come on standard input, until it ends, for the process of that number."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; whoever asks answers it
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    most = min(MOST_NBYTES, *(limit for limit in resource.getrlimit(resource.RLIMIT_AS) if limit >= 0), MOST_NBYTES)
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    threading.Thread(target=_end_with, args=(int(parent),), daemon=True).start()
    asked, answers = os.fdopen(0, "rb", 0), os.fdopen(os.dup(1), "wb", 0)
    os.dup2(2, 1)  # what a library prints is no answer
    signal.setitimer(signal.ITIMER_REAL, float(seconds))
    try:
        template = ChatTemplate(path)
        _answer(answers, _Began(template.counts_tokens))
    except UsageError as error:
        _answer(answers, _Began(problem=str(error)))
        return
    except MemoryError:
        _answer(answers, _Began(problem=f"the template {path} cannot be read: it {_MEMORY}"))
        return
    while True:
        signal.setitimer(signal.ITIMER_REAL, 0)
        try:
            length, wanted = _LENGTH.unpack(_read(asked, _LENGTH.size))
            row = _read(asked, length)
        except EOFError:
            return
        signal.setitimer(signal.ITIMER_REAL, float(seconds))
        try:
            value = msgspec.json.decode(row)
            answer = (
                template.cut(value) if wanted == _PIECES else template.rendering_of(value, finds=wanted == _FINDINGS)
            )
        except MemoryError:
            answer = Rendering(beyond=_MEMORY)
        _answer(answers, answer)


_MEMORY = f"wants more than {MOST_NBYTES // 1024**3} GiB of memory"


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_SECONDS_BETWEEN_LOOKS)
    os._exit(1)


def _answer(pipe: IO[bytes], value: Any) -> None:
    data = _encode(value)
    _write(pipe, _LENGTH.pack(len(data), _TOKENS))
    _write(pipe, data)


def _write(pipe: IO[bytes], data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[pipe.write(left) :]


def _read(pipe: IO[bytes], nbytes: int) -> bytes:
    pieces = []
    while nbytes:
        piece = pipe.read(min(nbytes, 1024 * 1024))
        if not piece:
            raise EOFError
        pieces.append(piece)
        nbytes -= len(piece)
    return b"".join(pieces)
