"""The same job with other tools, as an engineer would write it in an hour, for bench_end_to_end.py.

usage: python benchmarks/peers.py NAME INPUT... --output OUT

Each keeps rewards >= 0.95, writes `openai` rows in the order of the input, leaves out what it cannot convert, and
uses as many processes as there are cores where the tool can. jq has the rules for well-formed rollouts alone.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import multiprocessing
import os
import runpy
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any

import baseline
import corpora

THRESHOLD = 0.95
CORES = len(os.sched_getaffinity(0))

# The rules of the page for well-formed rollouts, in jq.
JQ = r"""
def text: if type == "string" then . else map(.text) | join("") end;
select(.reward >= 0.95) | .responses_create_params as $params
| ($params.input + .response.output)
| reduce .[] as $item ({turns: [], calls: []};
    if $item.type == "function_call" then .calls += [{name: $item.name, arguments: ($item.arguments | fromjson)}]
    elif $item.type == "reasoning" then .
    else
      (if .calls == [] then .
       else {turns: (.turns + [{role: "assistant", content: "", tool_calls: .calls}]), calls: []} end)
      | if $item.type == "function_call_output" then .turns += [{role: "tool", content: $item.output}]
        else .turns += [{role: $item.role, content: ($item.content | text)}] end
    end)
| (if .calls != [] then .turns + [{role: "assistant", content: "", tool_calls: .calls}] else .turns end) as $turns
| {messages: $turns}
  + (if $params.tools == [] then {} else {tools: ($params.tools | map({name, description, parameters}))} end)
"""


def wanted_row(rollout: Any) -> dict[str, Any] | None:
    """Give the row of a decoded rollout, or None where it is not wanted or not usable."""
    try:
        reward = rollout.get("reward", 0.0)
        return baseline.to_openai(rollout) if reward is not None and reward >= THRESHOLD else None
    except baseline.UnusableError:
        return None


def json_loop(shards: list[Path], output: Path) -> None:
    """Plain `json` and a for loop: baseline.py itself."""
    baseline.convert(shards, output)


def orjson_pool(shards: list[Path], output: Path) -> None:
    """orjson and the page's functions in a pool of processes, each on ranges of bytes that end at a line."""
    ranges = [
        (path, start, min(start + (16 << 20), path.stat().st_size))
        for path in shards
        for start in range(0, path.stat().st_size, 16 << 20)
    ]
    with multiprocessing.Pool(CORES) as pool, output.open("wb") as rows:
        for part in pool.imap(_orjson_rows, ranges):
            rows.write(part)


def _orjson_rows(part: tuple[Path, int, int]) -> bytes:
    import orjson

    path, start, stop = part
    rows = []
    with path.open("rb") as file:
        file.seek(max(start - 1, 0))
        if start:
            file.readline()
        while file.tell() < stop and (line := file.readline()):
            try:
                row = wanted_row(orjson.loads(line))
            except orjson.JSONDecodeError:
                continue
            if row:
                rows.append(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE))
    return b"".join(rows)


def datasets(shards: list[Path], output: Path) -> None:
    """Hugging Face datasets: lines as text, map and filter in processes, rows as text again."""
    import datasets as hf

    with tempfile.TemporaryDirectory(dir=output.parent) as cache:
        lines = hf.load_dataset("text", data_files=[str(path) for path in shards], cache_dir=cache, split="train")
        rows = lines.map(_batch_of_rows, batched=True, num_proc=CORES, remove_columns=["text"])
        with output.open("w", encoding="utf-8") as file:
            for batch in rows.iter(1000):
                file.writelines(f"{row}\n" for row in batch["row"])


def _batch_of_rows(batch: dict[str, list[str]]) -> dict[str, list[str]]:
    rows = []
    for text in batch["text"]:
        try:
            row = wanted_row(json.loads(text))
        except ValueError:
            continue
        if row:
            rows.append(json.dumps(row, ensure_ascii=False))
    return {"row": rows}


def datatrove(shards: list[Path], output: Path) -> None:
    """Datatrove: a reader, one block that filters and converts, a writer, as many workers as cores."""
    from datatrove.data import Document
    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline.readers import JsonlReader
    from datatrove.pipeline.writers import JsonlWriter

    def rollout(self: Any, data: dict[str, Any], path: str, number: int) -> dict[str, Any]:
        return {"text": "-", "id": str(number), "metadata": data}

    def kept(data: Iterator[Document], rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        for document in data:
            if row := wanted_row(document.metadata):
                document.metadata = row
                yield document

    def metadata(self: Any, document: Document) -> dict[str, Any]:
        return document.metadata

    with tempfile.TemporaryDirectory(dir=output.parent) as scratch:
        blocks = [
            JsonlReader(str(shards[0].parent), adapter=rollout, glob_pattern="*.jsonl"),
            kept,
            JsonlWriter(f"{scratch}/rows", adapter=metadata, compression=None, output_filename="${rank}.jsonl"),
        ]
        LocalPipelineExecutor(blocks, tasks=len(shards), workers=CORES, logging_dir=f"{scratch}/logs").run()
        with output.open("wb") as file:
            for path in sorted(Path(scratch, "rows").iterdir()):
                with path.open("rb") as part:
                    shutil.copyfileobj(part, file)


def jq(shards: list[Path], output: Path) -> None:
    """jq, one process a shard, as many at once as cores."""
    parts = [output.with_name(f"{output.name}.{index}") for index in range(len(shards))]
    with ThreadPool(CORES) as pool:
        pool.starmap(_jq_shard, zip(shards, parts, strict=True))
    with output.open("wb") as file:
        for part in parts:
            with part.open("rb") as rows:
                shutil.copyfileobj(rows, file)
            part.unlink()


def _jq_shard(shard: Path, part: Path) -> None:
    with shard.open("rb") as lines, part.open("wb") as rows:
        subprocess.run(["jq", "-c", JQ], stdin=lines, stdout=rows, check=True)


def polars(shards: list[Path], output: Path) -> None:
    """Polars, streaming from one schema for all lines: single-turn text alone, as content has one type."""
    import polars as pl

    part = pl.Struct({"text": pl.String})
    said = pl.Struct({"role": pl.String, "content": pl.List(part)})
    asked = pl.Struct({"role": pl.String, "content": pl.String})
    schema = {
        "reward": pl.Float64,
        "responses_create_params": pl.Struct({"input": pl.List(asked)}),
        "response": pl.Struct({"output": pl.List(said)}),
    }
    item = pl.element().struct
    text = item.field("content").list.eval(pl.element().struct.field("text")).list.join("")
    prompt = pl.col("responses_create_params").struct.field("input")
    answer = pl.col("response").struct.field("output").list.eval(pl.struct(item.field("role"), text.alias("content")))
    lines = pl.scan_ndjson(shards, schema=schema).filter(pl.col("reward") >= THRESHOLD)
    lines.select(pl.concat_list(prompt, answer).alias("messages")).sink_ndjson(output)


def duckdb(shards: list[Path], output: Path) -> None:
    """DuckDB, from one schema for all lines: single-turn text alone, as content has one type."""
    import duckdb as db

    db.execute(f"SET threads = {CORES}")
    db.execute(
        f"""
        COPY (
            SELECT list_concat(
                responses_create_params.input,
                list_transform(response."output", lambda item: {{
                    'role': item.role,
                    'content': array_to_string(list_transform(item.content, lambda part: part.text), '')
                }})
            ) AS messages
            FROM read_json({[str(path) for path in shards]}, format = 'newline_delimited', columns = {{
                reward: 'DOUBLE',
                responses_create_params: 'STRUCT(input STRUCT(role VARCHAR, content VARCHAR)[])',
                response: 'STRUCT("output" STRUCT(role VARCHAR, content STRUCT(text VARCHAR)[])[])'
            }})
            WHERE reward >= {THRESHOLD}
        ) TO '{output}' (FORMAT json)
        """
    )


def reference(shards: list[Path], output: Path) -> None:
    """The script of NeMo Gym's SFT guide itself, where it lies beside the project."""
    sys.argv = [str(corpora.REFERENCE), "--input", str(shards[0]), "--output", str(output)]
    runpy.run_path(str(corpora.REFERENCE), run_name="__main__")


PEERS: dict[str, Callable[[list[Path], Path], None]] = {
    "json": json_loop,
    "orjson-pool": orjson_pool,
    "datasets": datasets,
    "datatrove": datatrove,
    "jq": jq,
    "polars": polars,
    "duckdb": duckdb,
    "reference": reference,
}

SHAPES = {  # that a peer can do; the others can do all
    "jq": {"short", "tools", "tokens", "unicode"},
    "polars": {"short", "tokens", "unicode"},
    "duckdb": {"short", "tokens", "unicode"},
    "reference": {"page"},
}


def can_do(name: str, shape: str) -> bool:
    """Tell whether a peer is there, packages of the extra `bench` or jq from the system, and can do a shape at all."""
    if shape not in SHAPES.get(name, {shape}):
        return False
    match name:
        case "json" | "reference":
            return True
        case "jq":
            return shutil.which("jq") is not None
        case _:
            return importlib.util.find_spec(name.partition("-")[0]) is not None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("peer", choices=PEERS)
    parser.add_argument("inputs", nargs="+", type=Path)
    parser.add_argument("--output", type=Path, required=True)
    chosen = parser.parse_args()
    PEERS[chosen.peer](chosen.inputs, chosen.output)


if __name__ == "__main__":
    sys.exit(main())
