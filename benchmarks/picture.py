"""Draw a terminal in which fastsft runs, for README: the commands are run, and what they print is drawn.

usage: python benchmarks/picture.py [--output fastsft/docs/terminal.svg]
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import io
import os
import pty
import re
import struct
import subprocess
import sys
import tempfile
import termios
from pathlib import Path

from rich.console import Console
from rich.text import Text

WIDTH = 80
# Each command, and how many lines of what it prints are shown, from the first on.
SHOWN = (
    ("fastsft convert rollouts/ -o sft_data/train.jsonl --format chat --dedup --trainable", 19),
    ("fastsft check sft_data/train.jsonl", 2),
)


def printed(command: str, folder: str) -> list[str]:
    """Run a command at a terminal, and return the lines that are there when it has ended, with their colours."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(folder)
        fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 24, WIDTH, 0, 0))
        kept = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "COLUMNS")}
        words = [sys.executable, "-m", "fastsft", *command.split()[1:]]
        os.execve(sys.executable, words, {**kept, "TERM": "xterm"})
    drawn = b""
    with contextlib.suppress(OSError):  # which the other end's closing is
        while read := os.read(terminal, 65536):
            drawn += read
    _, status = os.waitpid(pid, 0)
    if status:
        raise RuntimeError(drawn.decode())
    return drawn.decode().rpartition("\r\x1b[K")[2].splitlines()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--output", type=Path, default=Path(__file__).parent.parent / "fastsft/docs/terminal.svg")
    output = parser.parse_args().output
    console = Console(record=True, width=WIDTH, file=io.StringIO(), highlight=False)
    with tempfile.TemporaryDirectory() as folder:
        generate = Path(__file__).parent / "generate.py"
        subprocess.run([sys.executable, str(generate), "rollouts"], cwd=folder, check=True, capture_output=True)
        for command, count in SHOWN:
            console.print(Text("$ ", "bold green") + Text(command, "bold"))
            for line in printed(command, folder)[:count]:
                console.print(Text.from_ansi(line))
    # The id that rich gives each picture is drawn from its text; a fixed one keeps the file the same.
    svg = console.export_svg(title="fastsft", unique_id="fastsft")
    output.write_text(re.sub(r"[ \t]+$", "", svg, flags=re.MULTILINE))


if __name__ == "__main__":
    main()
