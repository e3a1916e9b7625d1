"""What a round of the soak holds an output against: the oracle's rows and fates, and the bytes of another run."""

from __future__ import annotations

import gzip
import itertools
import json
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from soak_corpus import Json, Line, zstd
from soak_options import Plan
from soak_run import Ended

_LINE_ENDS = [character.encode() for character in "\u2028\u2029\u0085"]


class WrongError(Exception):
    """What the soak is there to find."""


def need(condition: bool, problem: str) -> None:
    if not condition:
        raise WrongError(problem)


# Files.


def files_in(folder: Path) -> dict[str, bytes]:
    """Read all files below a folder; of reports, leave out the time and what is said of interruptions."""
    found = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    for name in found:
        if name.endswith(".report.json") and not _is_hidden(name):
            report = json.loads(found[name])
            report["seconds"], report["notes"] = 0, []
            found[name] = json.dumps(report).encode()
    return found


def visible(folder: Path) -> dict[str, bytes]:
    return {name: data for name, data in files_in(folder).items() if not _is_hidden(name)}


def hidden(folder: Path) -> list[str]:
    return sorted(str(path) for path in folder.rglob(".*"))


def differing(found: dict[str, bytes], expected: dict[str, bytes]) -> list[str]:
    """Name the files that differ, with where."""
    told = []
    for name in sorted(found.keys() | expected.keys()):
        one, other = found.get(name), expected.get(name)
        if one is None or other is None:
            told.append(f"{name} is {'missing' if one is None else 'too much'}")
        elif one != other:
            at = next(
                (at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other))
            )
            told.append(
                f"{name} at byte {at}: {one[max(at - 60, 0) : at + 60]!r} for {other[max(at - 60, 0) : at + 60]!r}"
            )
    return told


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") for part in Path(name).parts)


# Against the oracle.


def against_the_oracle(
    plan: Plan, names: list[str], judged: list[list[Line] | None], ended: Ended, folder: Path
) -> None:
    """Compare the exit code, the rows and their order, and the fate of every line."""
    lines = [line for shard in judged for line in shard or []]
    need("Traceback" not in ended.said, f"a traceback: {ended.said}")
    code = _exit_code(plan, judged)
    need(ended.code in ((code,) if code is not None else (0, 1, 3)), f"exit code {ended.code} for {code}: {ended.said}")
    if ended.code:
        need(files_in(folder / "out") == {}, f"exit code {ended.code}, and published: {[*files_in(folder / 'out')]}")
        return
    report = json.loads(next((folder / "out").rglob("train.report.json")).read_bytes())
    _fates(plan, names, judged, report)
    outputs = _rows_of(folder / "out", plan)
    rows = [row for found in outputs for row in found]
    need(len(rows) == report["fates"]["kept"], f"{len(rows)} rows, and {report['fates']['kept']} lines were kept")
    if not plan.chooses and plan.knows_fates:
        _refused(plan, names, lines, folder)
    if plan.shows_rows:
        _rows(plan, outputs, [line for line in lines if isinstance(line.verdict, dict)])


def _is_refused(line: Line) -> bool:
    return isinstance(line.verdict, str) and bool(line.verdict) and line.verdict not in _DROPPED


_DROPPED = {
    *("masked", "failed", "unverified", "incomplete", "no_generation", "no_user_turn"),
    *("no_reward", "below_threshold", "above_max"),
}


def _exit_code(plan: Plan, judged: list[list[Line] | None]) -> int | None:
    """Return the exit code that README promises; None where the oracle cannot tell."""
    if plan.chooses or not plan.knows_fates:
        return None
    lines = [line for shard in judged for line in shard or []]
    refused = sum(map(_is_refused, lines))
    is_damaged = None in judged
    if plan.max_refused is not None and (refused > plan.max_refused or is_damaged):
        return 3
    if (refused or is_damaged) and refused == sum(line.verdict != "" for line in lines):
        return 1
    return 0 if plan.allow_empty or any(isinstance(line.verdict, dict) for line in lines) else 1


def _fates(plan: Plan, names: list[str], judged: list[list[Line] | None], report: Json) -> None:
    need([shard["path"] for shard in report["inputs"]] == names, "other inputs are reported")
    for shard, lines in zip(report["inputs"], judged, strict=True):
        fates = shard["fates"]
        need((lines is None) == bool(shard["problem"]), f"damaged or not: {shard}")
        found = (fates["lines"], fates["blank"])
        expected = (len(lines or []), sum(line.verdict == "" for line in lines or []))
        need(found == expected, f"{shard['path']}: lines and blank ones {found} for {expected}")
        given = fates["kept"] + sum(fates["dropped"].values()) + sum(fates["refused"].values())
        need(given + fates["blank"] == fates["lines"], f"the fates of {shard['path']} do not add up: {fates}")
        if not plan.chooses and plan.knows_fates:
            expected_fates = Counter("kept" if isinstance(line.verdict, dict) else line.verdict for line in lines or [])
            found_fates = Counter({"kept": fates["kept"], "": fates["blank"], **fates["dropped"], **fates["refused"]})
            need(+found_fates == expected_fates, f"{shard['path']}: {+found_fates} for {expected_fates}")
    total = Counter(lines=sum(shard["fates"]["lines"] for shard in report["inputs"]))
    need(report["fates"]["lines"] == total["lines"], "the shards do not add up to the whole")


def _refused(plan: Plan, names: list[str], lines: list[Line], folder: Path) -> None:
    """Compare the list of refused lines: which, in which order, why."""
    found = [path.read_bytes() for path in (folder / "out").rglob("train.refused")]
    listed = [json.loads(line) for data in found for line in data.splitlines()]
    expected = [(names[line.shard], line.number, line.verdict) for line in lines if _is_refused(line)]
    told = [(one["shard"], one["line"], one["reason"]) for one in listed]
    if plan.splits:  # in two passes: first what is no rollout, then what can have no row
        count = len(expected) if plan.max_recorded is None else min(len(expected), plan.max_recorded)
        need(len(told) == count and not Counter(told) - Counter(expected), f"refused lines: {told} of {expected}")
        return
    expected = expected[: plan.max_recorded]
    need(told == expected, f"refused lines: {_first_difference(told, expected)}")


def _rows_of(out: Path, plan: Plan) -> list[list[Json]]:
    """Read the rows of each output, those of its shards one behind the other."""
    outputs: dict[str, list[Json]] = defaultdict(list)
    for path in sorted(path for path in out.rglob("*.jsonl*") if not _is_hidden(str(path.relative_to(out)))):
        data = path.read_bytes()
        if path.suffix == ".gz":
            data = gzip.decompress(data)
        if path.suffix == ".zst":
            data = zstd().decompress(data)
        need(not any(end in data for end in _LINE_ENDS), f"{path.name} has a raw line end")
        need(data == b"" or data.endswith(b"\n"), f"{path.name} does not end in a line feed")
        stem = path.name.partition(".")[0].partition("-")[0]
        outputs[stem] += [_as_the_oracle(json.loads(row), plan) for row in data.split(b"\n")[:-1]]
    return list(outputs.values())


def _as_the_oracle(row: Json, plan: Plan) -> Json:
    """Undo what the oracle has no option for: arguments and tools as strings."""
    if isinstance(row.get("tools"), str):
        row["tools"] = json.loads(row["tools"])
    for message in row.get("messages", []):
        for call in message.get("tool_calls", []):
            function = call.get("function", {})
            if isinstance(function.get("arguments"), str):
                text = function["arguments"]
                function["arguments"] = json.loads(text) or {} if text.strip() else {}
    return row


def _rows(plan: Plan, outputs: list[list[Json]], expected: list[Line]) -> None:
    """Compare rows and their order; where lines are compared, see that rows are among the oracle's, in their order."""
    found = [list(map(json.dumps, rows)) for rows in outputs]
    together = list(itertools.chain.from_iterable(found))
    wanted = [json.dumps(line.verdict) for line in expected]
    if not plan.chooses and not plan.splits:
        need(together == wanted, f"rows: {_first_difference(together, wanted)}")
    if not plan.chooses:
        need(Counter(together) == Counter(wanted), "the splits together are not all rows")
    for rows in found:
        rest = iter(wanted)
        alien = next((row for row in rows if row not in rest), None)
        need(alien is None, f"a row that the oracle does not have, or has before: {alien}")
    _groups(plan, together, expected)


def _groups(plan: Plan, rows: list[str], expected: list[Line]) -> None:
    """See that no group has more rows than it may have; tasks are known here by equal prompts, which is less."""
    if plan.is_unique:
        again = [row for row, count in Counter(rows).items() if count > 1]
        need(not again, f"the same row again with --dedup: {again[:1]}")
    for group, most in plan.at_most.items():
        keys = defaultdict(set)
        for line in expected:
            keys[json.dumps(line.verdict)].add(_group_of(json.loads(line.data), group))
        counts = Counter(next(iter(keys[row])) for row in rows if len(keys[row]) == 1)
        del counts[""]
        need(max(counts.values(), default=0) <= most, f"more than {most} of a {group}: {counts.most_common(1)}")


def _group_of(rollout: Json, group: str) -> str:
    """Return what rows of the same group have in common for sure; an empty text where nothing is sure."""
    if group == "all":
        return "all"
    if group == "agent":
        agent = rollout.get("agent_ref")
        return str(agent.get("name") or "") if isinstance(agent, dict) else ""
    params = rollout["responses_create_params"]
    given = [params["input"], params.get("tools") or None, params.get("instructions") or None]
    return json.dumps(given, sort_keys=True) if given[0] else ""


def _first_difference(found: Iterable[Any], expected: Iterable[Any]) -> str:
    found, expected = list(found), list(expected)
    at = next(
        (at for at, (a, b) in enumerate(zip(found, expected, strict=False)) if a != b), min(len(found), len(expected))
    )
    shown = [str(values[at])[:2000] if at < len(values) else "nothing" for values in (found, expected)]
    return f"{len(found)} for {len(expected)}, number {at} is\n  {shown[0]}\nfor\n  {shown[1]}"
