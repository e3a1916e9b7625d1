"""Rollouts and rows made from words: `rollout(user("2+2?"), said("4"))` is a line, `assistant("4")` a turn."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import msgspec

from fastsft.formats import FORMATS
from fastsft.formats.row import Layout
from fastsft.rollouts.line import rollout_of

Json = dict[str, Any]


# Items of a rollout.


def user(content: Any) -> Json:
    return {"type": "message", "role": "user", "content": content}


def system(content: Any) -> Json:
    return {"type": "message", "role": "system", "content": content}


def said(*texts: str) -> Json:
    parts = [{"type": "output_text", "text": text, "annotations": []} for text in texts]
    return {"type": "message", "role": "assistant", "content": parts, "id": "msg_1", "status": "completed"}


def call(name: str, /, **arguments: Any) -> Json:
    return raw_call(name, json.dumps(arguments))


def raw_call(name: str, arguments: Any, *, id: str = "call_1") -> Json:
    return {"type": "function_call", "name": name, "arguments": arguments, "call_id": id}


def returned(output: Any, *, id: str = "call_1") -> Json:
    return {"type": "function_call_output", "call_id": id, "output": output}


def thought(*texts: str) -> Json:
    return {"type": "reasoning", "summary": [{"type": "summary_text", "text": text} for text in texts]}


def sampled(item: Json) -> Json:
    """An item on which the tokens that the model sampled are recorded."""
    return {**item, "prompt_token_ids": [1, 2], "generation_token_ids": [3], "generation_log_probs": [-0.5]}


# Rollouts.


def rollout(prompt: Any, /, *output: Any, reward: Any = 1.0, **params: Any) -> Json:
    """A rollout as NeMo Gym writes it; a prompt of one item need not be a list."""
    prompt = [prompt] if isinstance(prompt, dict) else prompt
    return {
        "responses_create_params": {"input": prompt, **params},
        "response": {"output": list(output)},
        "reward": reward,
    }


def line(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode() + b"\n"


def lines(*values: Any) -> bytes:
    return b"".join(map(line, values))


# Turns of a row.


def turn(role: str, content: Any) -> Json:
    return {"role": role, "content": content}


def assistant(content: str = "", *, calls: list[tuple[str, Any]] | None = None) -> Json:
    tool_calls = [{"name": name, "arguments": arguments} for name, arguments in calls or []]
    return {**turn("assistant", content), **({"tool_calls": tool_calls} if tool_calls else {})}


def tool(content: Any, *, id: str | None = None) -> Json:
    return {**turn("tool", content), **({"tool_call_id": id} if id else {})}


def chat_call(name: str, arguments: Any, *, id: str = "call_1") -> Json:
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


def row_of(value: Json | bytes, format: str = "openai", **layout: Any) -> Json:
    """The row of one rollout, as a reader of the output decodes it."""
    encoded = value if isinstance(value, bytes) else json.dumps(value).encode()
    made = FORMATS[format](rollout_of(encoded), layout=Layout(format, **layout))
    row: Json = json.loads(msgspec.json.encode(made.body))
    return row


def messages_of(value: Json | bytes, format: str = "openai", **layout: Any) -> list[Json]:
    messages: list[Json] = row_of(value, format, **layout)["messages"]
    return messages


# Processes.


def in_a_new_process(script: str, *words: object) -> str:
    """What a script prints in a process in which nothing has been imported yet."""
    command = [sys.executable, "-c", script, *map(str, words)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()
