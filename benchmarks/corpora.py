"""The corpora that benchmarks run on: generate.py's shapes, and the real rollouts repeated where they are present.

`page` is the real rollouts as the script of NeMo Gym's SFT guide expects them (output on top, the prompt a list, tools
nested), less those that it fails on or makes another row of; as it takes one file, that is one shard.
"""

from __future__ import annotations

import gzip
import json
import os
import runpy
from pathlib import Path
from typing import Any

import baseline
import generate

SHARED = Path(__file__).resolve().parent.parent.parent / "shared"
REAL = SHARED / "rollouts"
REFERENCE = SHARED / "reference" / "transform_gym_to_sft.py"
SHAPES = [
    *(["real"] if REAL.is_dir() else []),
    *(["page"] if REAL.is_dir() and REFERENCE.exists() else []),
    *generate.SHAPES,
]


def write(folder: Path, shape: str, nbytes: int, *, kept: float = 0.5, shards: int = 4) -> list[Path]:
    """Write about `nbytes` of rollouts, to the disk; of `real` ones what share is kept is not ours to choose."""
    if shape in generate.SHAPES:
        paths = generate.write(folder, shape, count=None, nbytes=nbytes, shards=shards, kept=kept)
    else:
        paths = _real(folder, shape, nbytes, shards)
    os.sync()  # else what is written next to the same disk, and fastsft alone waits for that, waits for all of this
    return paths


def _real(folder: Path, shape: str, nbytes: int, shards: int) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    block = b"".join(path.read_bytes().strip() + b"\n" for path in sorted(REAL.glob("*.jsonl")))
    if shape == "page":
        block, shards = _as_on_the_page(block), 1
    paths = [folder / f"{shape}-{index:05}.jsonl" for index in range(shards)]
    for path in paths:
        with path.open("wb") as file:
            while file.tell() < nbytes // shards:
                file.write(block)
    return paths


def _as_on_the_page(lines: bytes) -> bytes:
    to_openai = runpy.run_path(str(REFERENCE))["transform_rollout_to_openai"]
    taken = []
    for line in lines.splitlines():
        try:
            rollout = json.loads(line)
            rollout["output"] = rollout["response"].pop("output")
            params = rollout["responses_create_params"]
            if isinstance(params["input"], str):
                params["input"] = [{"role": "user", "content": params["input"]}]
            params["tools"] = [_nested(tool) for tool in params.get("tools") or []]
            if rollout["reward"] < 0.95 or to_openai(rollout) == baseline.to_openai(rollout):
                taken.append(json.dumps(rollout, ensure_ascii=False).encode() + b"\n")
        except (ValueError, KeyError, TypeError, AttributeError, baseline.UnusableError):
            continue
    return b"".join(taken)


def _nested(tool: dict[str, Any]) -> dict[str, Any]:
    if tool["type"] != "function" or "function" in tool:
        return tool
    return {"type": "function", "function": {name: value for name, value in tool.items() if name != "type"}}


def compressed(paths: list[Path], kind: str) -> list[Path]:
    """Write each shard once more, compressed as `gz` or `zst`."""
    written = [path.with_name(f"{path.name}.{kind}") for path in paths]
    for path, packed in zip(paths, written, strict=True):
        if kind == "gz":
            packed.write_bytes(gzip.compress(path.read_bytes(), 6))
        else:
            from fastsft.storage.compression import zstd_frame

            data = path.read_bytes()
            packed.write_bytes(b"".join(zstd_frame([data], len(data), workers=1)))
    return written


def size_of(shards: list[Path]) -> int:
    """Bytes of all shards together."""
    return sum(path.stat().st_size for path in shards)
