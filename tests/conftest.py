"""Fixtures, and where the real rollouts and the benchmarks' oracle are found."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import fastsft

PROJECT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(PROJECT / "tests"), str(PROJECT / "benchmarks")]

# Where the tests begin with it ignored (a script's `&`), processes that they start would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

REAL_ROLLOUTS = PROJECT.parent / "shared" / "rollouts"


@pytest.fixture(scope="session")
def real_rollouts() -> list[Path]:
    """The shards of real rollouts, which are no part of this repository."""
    found = sorted(REAL_ROLLOUTS.glob("*.jsonl"))
    if not found:
        pytest.skip(f"no real rollouts in {REAL_ROLLOUTS.name}/ beside the project")
    return found


@pytest.fixture(scope="session")
def expected_chat(real_rollouts: list[Path]) -> dict[tuple[str, int], list[dict[str, Any]]]:
    """What NeMo Gym's own converter makes of the real rollouts, by file name and line; not of those it fails on."""
    path = REAL_ROLLOUTS.parent / "expected" / "chat.jsonl"
    if not path.exists():
        pytest.skip("no expected chat rows beside the project")
    lines = map(json.loads, path.read_bytes().splitlines())
    return {(line["file"], line["line"]): line["messages"] for line in lines if "messages" in line}


@pytest.fixture
def convert(tmp_path: Path) -> Callable[..., tuple[fastsft.Report, list[bytes]]]:
    """Convert one shard of the given bytes; give the report and the lines written."""

    def run(data: bytes, **options: Any) -> tuple[fastsft.Report, list[bytes]]:
        shard, output = tmp_path / "in.jsonl", tmp_path / "out" / "train.jsonl"
        shard.write_bytes(data)
        report = fastsft.convert(shard, output, **options)
        return report, output.read_bytes().splitlines(keepends=True)

    return run


@pytest.fixture
def tokenizer(tmp_path: Path) -> Path:
    """The folder of a tokenizer whose tokens are words; its chat template writes the texts of all turns."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    folder = tmp_path / "tokenizer"
    folder.mkdir()
    words = Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words.save(str(folder / "tokenizer.json"))
    template = "{{ bos_token }}{% for message in messages %} {{ message.content }}{% endfor %}"
    config = {"chat_template": template, "bos_token": {"__type": "AddedToken", "content": "<s>"}}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder
