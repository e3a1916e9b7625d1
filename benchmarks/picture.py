"""Draw a terminal in which fastsft runs, for README: the commands are run, and what they print is drawn.

usage: python benchmarks/picture.py [--output fastsft/docs/terminal.svg]
"""

from __future__ import annotations

import argparse
import io
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.text import Text

WIDTH = 80
# Each command, and how many lines of what it prints are shown, from the first on.
SHOWN = (
    ("fastsft convert rollouts/ --output sft_data/train.jsonl --format chat --dedup --trainable", 21),
    ("fastsft check sft_data/train.jsonl", 2),
)


def printed(command: str, folder: str) -> list[str]:
    """Run a command as a user does, and return the lines that it prints."""
    words = [sys.executable, "-m", "fastsft", *command.split()[1:]]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.replace(f"{folder}/", "").splitlines()


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
                console.print(Text(line))
    # The id that rich gives each picture is drawn from its text; a fixed one keeps the file the same.
    svg = console.export_svg(title="fastsft", unique_id="fastsft")
    output.write_text(re.sub(r"[ \t]+$", "", svg, flags=re.MULTILINE))


if __name__ == "__main__":
    main()
