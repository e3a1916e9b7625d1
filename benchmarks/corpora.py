"""The corpora that benchmarks run on: generate.py's shapes, and the real rollouts repeated where they are present."""

from __future__ import annotations

from pathlib import Path

import generate

REAL = Path(__file__).resolve().parent.parent.parent / "shared" / "rollouts"
SHAPES = [*(["real"] if REAL.is_dir() else []), *generate.SHAPES]


def write(folder: Path, shape: str, nbytes: int, *, kept: float = 0.5, shards: int = 4) -> list[Path]:
    """Write about `nbytes` of rollouts; of `real` ones what share is kept is not ours to choose."""
    if shape != "real":
        return generate.write(folder, shape, count=None, nbytes=nbytes, shards=shards, kept=kept)
    folder.mkdir(parents=True, exist_ok=True)
    block = b"".join(path.read_bytes().strip() + b"\n" for path in sorted(REAL.glob("*.jsonl")))
    paths = [folder / f"real-{index:05}.jsonl" for index in range(shards)]
    for path in paths:
        with path.open("wb") as file:
            while file.tell() < nbytes // shards:
                file.write(block)
    return paths


def size_of(shards: list[Path]) -> int:
    """Bytes of all shards together."""
    return sum(path.stat().st_size for path in shards)
