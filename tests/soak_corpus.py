"""Random rollouts for the soak, real and generated, damaged in many ways; and a naive reader that judges every line.

The reader decompresses with Python's own modules, splits at line feeds, and asks `benchmarks/baseline.py`: it shares no
code with fastsft. A line of which the oracle knows nothing (keys twice, numbers beyond a double, items of odd types) is
put into no corpus.
"""

from __future__ import annotations

import contextlib
import gzip
import importlib
import json
import random
import zlib
from collections import Counter
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import baseline
import generate
from soak_options import Plan

Json = dict[str, Any]
REAL_ROLLOUTS = Path(__file__).resolve().parent.parent.parent / "shared" / "rollouts"
BOM = b"\xef\xbb\xbf"
_BLANK = [b"", b"  ", b"\t", b"\r", b" \x0b\x0c "]
# Lines that the oracle has no rule for, and what README says of them.
_ROLLOUT = json.dumps(generate.Maker(0, 1.0).short()).encode()
_KNOWN = {
    b'{"a": ' + b"[" * 20_000 + b"]" * 20_000 + b", " + _ROLLOUT[1:]: "too_deep",
    _ROLLOUT[:-1] + b', "reward": 0.5}': "repeated_key",
}
_NO_ROLLOUTS = [b"[1]", b"3", b'"x"', b"null", b"true", b"{}", b"[]", b"NaN", b"\0" * 4096, b"}{", b"{torn"]
_WRONG: list[tuple[str, list[Any]]] = [
    ("reward", ["1", True, [], {}, None, 19, -100.5]),
    ("responses_create_params", [3, None, [], {}, "x"]),
    ("response", [None, [], {}, {"output": {}}, {"output": []}]),
    ("output", [None, {}, [], 7]),
    ("agent_ref", [None, 3, {"name": "other"}]),
    ("mask_sample", [True, False, None, "yes"]),
]


class Line(NamedTuple):
    """One line of a shard as the naive reader finds it.

    Attributes:
        shard: The index of its shard, from 0.
        number: Its number in it, from 1.
        data: Its bytes, without a byte order mark and the line feed.
        verdict: Its row; or the reason why it has none, as README calls it; an empty text if it is blank.
    """

    shard: int
    number: int
    data: bytes
    verdict: Json | str


def write(rng: random.Random, folder: Path, plan: Plan) -> list[Path]:
    """Write 1 to 6 shards of random rollouts, some of them damaged."""
    folder.mkdir(parents=True)
    pool = _pool(rng, plan)
    share = rng.choice([0.0, 0.02, 0.3])
    paths = []
    for index in range(rng.randint(1, 6)):
        kind = rng.choice(["", "", ".gz", ".zst"])
        lines = [] if rng.random() < 0.05 else rng.sample(pool, rng.randint(1, max(len(pool) // 2, 1)))
        for number, line in enumerate(lines):
            if rng.random() < share:
                lines[number] = rng.choice(_DAMAGES)(rng, line)
        for _ in range(rng.choice([0, 0, 3])):
            lines.insert(rng.randint(0, len(lines)), rng.choice(_BLANK))
        data = _joined(rng, lines, marked=plan.max_line is None and rng.random() < 0.25)
        if rng.random() < share and not kind:
            data = data[: rng.randint(0, len(data))]
        data = _judgeable(data, plan)
        path = folder / f"shard-{index}.jsonl{kind}"
        path.write_bytes(_packed(rng, data, kind, damaged=rng.random() < share))
        paths.append(path)
    return paths


def _pool(rng: random.Random, plan: Plan) -> list[bytes]:
    count = rng.choice([3, 60, 100, 300, 600, 600])
    shape = rng.choice(["mixed"] * 5 + ["short", "unicode", "tools"])
    lines = [line[:-1] for line in islice(generate.lines(shape, seed=rng.getrandbits(32), kept=0.6), count)]
    real = [path.read_bytes().splitlines() for path in sorted(REAL_ROLLOUTS.glob("*.jsonl"))]
    lines += rng.sample([line for found in real for line in found if len(line) < 200_000] or lines, min(count, 60))
    for line in rng.sample(lines, len(lines) // 3):  # attempts at the same task, and the same rows
        with contextlib.suppress(ValueError):  # two of the real files have a line that is no JSON
            rollout = json.loads(line)
            rollout["reward"] = rng.choice([1.0, 0.96, 0.5, rollout.get("reward")])
            lines.append(json.dumps(rollout, ensure_ascii=rng.random() < 0.5).encode())
    if plan.max_line is None:
        lines += rng.sample(list(_KNOWN), rng.choice([0, 0, 1, 2]))
    rng.shuffle(lines)
    return lines


# Damage to a line.


def _torn(rng: random.Random, line: bytes) -> bytes:
    at = rng.randint(0, len(line))
    return rng.choice([line[:at], line[at:]])


def _flipped(rng: random.Random, line: bytes) -> bytes:
    at = rng.randrange(len(line))
    return line[:at] + bytes([line[at] ^ 1 << rng.randrange(8)]) + line[at + 1 :]


def _bad_utf8(rng: random.Random, line: bytes) -> bytes:
    at = rng.randint(0, len(line))
    return line[:at] + rng.choice([b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xc0\xaf"]) + line[at:]


def _wrong_type(rng: random.Random, line: bytes) -> bytes:
    name, values = rng.choice(_WRONG)
    try:
        return json.dumps({**json.loads(line), name: rng.choice(values)}).encode()
    except (ValueError, TypeError, RecursionError):
        return line


def _long(rng: random.Random, line: bytes) -> bytes:
    size = rng.choice([70_000, 1_200_000])
    return rng.choice([line + b" " * size, b'{"ignored": "' + b"x" * size + b'", ' + line.lstrip(b" {")])


_DAMAGES: list[Callable[[random.Random, bytes], bytes]] = [
    *(_torn, _flipped, _bad_utf8, _wrong_type, _long),
    lambda rng, line: rng.choice(_NO_ROLLOUTS),
    lambda rng, line: line + rng.choice([b"", b" ", b","]) + line,
]


# Shards.


def _joined(rng: random.Random, lines: list[bytes], *, marked: bool) -> bytes:
    """Join lines, in front of them a byte order mark; not with `--max-line`, where blocks decide whether it counts."""
    feed = rng.choice([b"\n", b"\n", b"\r\n"])
    return (BOM if marked else b"") + feed.join(lines) + rng.choice([b"", feed, feed])


def _judgeable(data: bytes, plan: Plan) -> bytes:
    """Replace lines of which the oracle knows nothing."""
    mark = BOM if data.startswith(BOM) else b""
    lines = data.removeprefix(mark).split(b"\n")
    return mark + b"\n".join(b"{torn" if _verdict(line, plan) is None else line for line in lines)


def _packed(rng: random.Random, data: bytes, kind: str, *, damaged: bool) -> bytes:
    if not kind:
        return data
    pieces = [data]
    for _ in range(rng.choice([0, 0, 2])):  # members, or frames, one behind the other
        at = rng.randint(0, len(pieces[-1]))
        pieces[-1:] = [pieces[-1][:at], pieces[-1][at:]]
    if kind == ".gz":
        packed = b"".join(gzip.compress(piece, 1) for piece in pieces)
    else:
        checked = {zstd().CompressionParameter.checksum_flag: 1}
        packed = b"".join(zstd().compress(piece, options=checked) for piece in pieces)
    if not damaged:
        return packed
    at = rng.randrange(10, len(packed))  # behind the first header, by which the kind is told
    return rng.choice([packed[:at], _flipped_at(rng, packed, at)])


def _flipped_at(rng: random.Random, data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]


def zstd() -> Any:
    for name in ("compression.zstd", "backports.zstd"):
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError:
            continue
    raise SystemExit("the soak needs backports.zstd")


# The naive reader.


def read(paths: list[Path], plan: Plan) -> list[list[Line] | None]:
    """Return the lines of each shard, judged one by one; None for a damaged shard, which is refused whole."""
    return [_read_shard(index, path, plan) for index, path in enumerate(paths)]


def _read_shard(index: int, path: Path, plan: Plan) -> list[Line] | None:
    data = path.read_bytes()
    try:
        if path.suffix == ".gz":
            data = gzip.decompress(data)
        if path.suffix == ".zst":
            data = zstd().decompress(data)
    except (EOFError, OSError, zlib.error, zstd().ZstdError):
        return None
    lines = data.removeprefix(BOM).split(b"\n")
    if lines[-1] == b"":
        lines.pop()
    return [Line(index, number, line, _verdict(line, plan) or "") for number, line in enumerate(lines, 1)]


def _verdict(line: bytes, plan: Plan) -> Json | str | None:
    """Return the row of a line, or why it has none; None where the oracle does not know."""
    if plan.max_line is not None and len(line) > plan.max_line:
        return "line_too_long"
    if known := _KNOWN.get(line.removesuffix(b"\r")):
        return known
    try:
        text = line.decode()
        json.loads(text, object_pairs_hook=_keys_once)
        rollout = baseline.strict(text)
    except ValueError:
        rollout = None
    except (_TwiceError, RecursionError, baseline.UnusableError):
        return None
    try:
        judged = _allowed(rollout, plan.allow) if isinstance(rollout, dict) and plan.allow else line
        gated = not {"all", "no_user_turn"} & set(plan.allow)
        if not gated and "all" not in plan.allow:
            found = baseline.row_of(judged, layout=plan.layout, reward_threshold=float("inf"))
            if found not in ("no_user_turn", "below_threshold"):
                return found
        # By an infinite threshold the oracle tells what comes before the reward; above it, the oracle knows no limit.
        found = baseline.row_of(judged, layout=plan.layout, reward_threshold=float("inf"), gated=gated)
        if found != "below_threshold":
            return found
        reward = rollout.get("reward", 0.0)
        if reward < plan.threshold:
            return "below_threshold"
        if plan.max_reward is not None and reward > plan.max_reward:
            return "above_max"
        return baseline.row_of(judged, layout=plan.layout, reward_threshold=plan.threshold, gated=gated)
    except Exception:
        return None


class _TwiceError(Exception):
    """A key stands twice in an object, of which readers differ."""


def _keys_once(pairs: list[tuple[str, Any]]) -> Json:
    if max(Counter(name for name, _ in pairs).values(), default=1) > 1:
        raise _TwiceError
    return dict(pairs)


def _allowed(rollout: Json, allow: tuple[str, ...]) -> bytes:
    """Take out the marks at which no gate is to close, as the oracle closes all or none."""
    rollout = json.loads(json.dumps(rollout))
    response = rollout.get("response") if isinstance(rollout.get("response"), dict) else {}
    config = rollout.get("instance_config")
    marks: dict[str, list[tuple[Any, str]]] = {
        "masked": [(rollout, "mask_sample"), (config if isinstance(config, dict) else {}, "mask_sample")],
        "failed": [(rollout, "_ng_failure_class")],
        "unverified": [(rollout, "verification_skipped")],
        "incomplete": [(rollout, "truncated"), (response, "incomplete_details"), (response, "status")],
        "no_generation": [
            (response.get("metadata") if isinstance(response.get("metadata"), dict) else {}, "ng_no_generation")
        ],
    }
    for gate in allow:
        for holder, name in marks.get(gate, []):
            holder.pop(name, None)
    return json.dumps(rollout).encode()
