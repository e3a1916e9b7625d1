"""fastsft and benchmarks/baseline.py, which share no code, agree on every line."""

from __future__ import annotations

import json
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

import baseline
import generate
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import fastsft


def agree(data: bytes, folder: Path, layout: str, threshold: float) -> Counter[str]:
    """Compare rows, their order and keys' order, and the reason of every line without a row."""
    shard = folder / "in.jsonl"
    shard.write_bytes(data)
    expected = [
        baseline.row_of(line, layout=layout, reward_threshold=threshold)
        for line in data.removesuffix(b"\n").split(b"\n")
    ]
    rows = [row for row in expected if isinstance(row, dict)]
    reasons = Counter(row for row in expected if isinstance(row, str) and row)
    try:
        report = fastsft.convert(shard, folder / "rows.jsonl", format=layout, reward_threshold=threshold, jobs=1)
        written = (folder / "rows.jsonl").read_bytes().splitlines()
    except fastsft.FailedRun as failed:
        report, written = failed.report or fastsft.Report(version="", options={}), []
    assert list(map(json.dumps, map(json.loads, written))) == list(map(json.dumps, rows))
    assert Counter(report.fates.dropped) + Counter(report.fates.refused) == reasons
    assert report.fates.blank == expected.count("")
    return reasons


@pytest.mark.parametrize("layout", ["openai", "chat", "simple"])
@pytest.mark.parametrize("shape", generate.SHAPES)
def test_generated_rollouts_of_every_shape(tmp_path, shape, layout):
    count = 600 if shape == "mixed" else 20
    data = b"".join(islice(generate.lines(shape, seed=11, kept=0.7), count))

    reasons = agree(data, tmp_path, layout, 0.95)

    assert reasons["below_threshold"] > 0
    if (shape, layout) == ("mixed", "openai"):
        assert {"bad_arguments", "no_output", "no_reward", "unknown_item"} <= set(reasons)


@pytest.mark.parametrize("layout", ["openai", "chat", "simple"])
@pytest.mark.parametrize("threshold", [0.95, -1e9])
def test_real_rollouts(real_rollouts, tmp_path, layout, threshold):
    agree(
        b"".join(path.read_bytes().removesuffix(b"\n") + b"\n" for path in real_rollouts), tmp_path, layout, threshold
    )


# Rollouts with anything anywhere: every field of every item may be of any type.

_TEXT = st.sampled_from(
    ["", "a", "é\n", "<think>\na</think>b", "a\n</think>\n", '{"a": 1}', "[1]", '{"a":1,"a":[2,{}]}', "null", "\u2028"]
)
_ANY = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats(allow_nan=False, allow_infinity=False) | _TEXT,
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["a", "type", "text"]), inner, max_size=2)
    ),
    max_leaves=4,
)


def _fields(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Objects in which each field is missing now and then, and seldom of any type."""
    return st.fixed_dictionaries({}, optional={name: value | value | value | _ANY for name, value in fields.items()})


_PART = _fields(
    type=st.sampled_from(
        [
            "input_text",
            "output_text",
            "text",
            "refusal",
            "input_image",
            "input_video",
            "image_url",
            "input_file",
            "file",
        ]
    ),
    video_url=_TEXT | _fields(url=_TEXT),
    text=_TEXT,
    refusal=_TEXT,
    image_url=_TEXT | _fields(url=_TEXT),
)
# Tags that open, close, or are apart, over several texts.
_TAGGED = st.sampled_from(["<think>", "<think>\n", "<think>a", "a\n</think>", "a</think>\r\nb", "</think>\nb", "b"])
_CONTENT = _TEXT | _TAGGED | st.lists(_PART, max_size=3)
_IDS = st.sampled_from([[0], [1], [1, 2], [], None, "e:i32:AQAAAA=="])
_ITEM = _fields(
    type=st.sampled_from(["message", "message", "function_call", "function_call_output", "reasoning", "mcp_call"]),
    role=st.sampled_from(["user", "assistant", "assistant", "system", "tool"]),
    content=_CONTENT,
    name=_TEXT,
    arguments=st.sampled_from(['{"a": 1}', "{}"]) | _TEXT,
    output=_CONTENT,
    call_id=st.sampled_from(["1", "2"]),
    tool_call_id=st.sampled_from(["1", "2", None]),
    reasoning_content=_TEXT | st.none(),
    reasoning=_TEXT,
    summary=st.lists(_fields(text=_TEXT), max_size=2),
    namespace=st.sampled_from(["n", "", None]),
    prompt_token_ids=_IDS,
    generation_token_ids=_IDS,
)
_ITEMS = st.lists(_ITEM, max_size=4)
_FUNCTION = _fields(type=st.just("function"), name=_TEXT, parameters=_ANY, function=_fields(name=_TEXT))
_NAMESPACE = st.fixed_dictionaries({"type": st.just("namespace"), "name": st.just("n"), "tools": st.lists(_FUNCTION)})
_TOOLS = st.lists(_FUNCTION | _NAMESPACE, max_size=3)
_ROLLOUT = _fields(
    responses_create_params=_fields(
        input=_ITEMS | _TEXT,
        tools=_TOOLS,
        instructions=st.none() | _TEXT,
        previous_response_id=st.none(),
    ),
    response=_fields(output=_ITEMS | st.lists(_ITEMS), tools=_TOOLS),
    reward=st.floats(0, 1),
    _ng_token_capture=st.none() | st.just({"n_calls": 2}),
)


def well_typed(value: Any) -> bool:
    """Whether the oracle has a rule for it: what a struct's wrong types give is tested by name in test_openai.py."""
    if not isinstance(value, dict):
        return True
    params, response = value.get("responses_create_params"), value.get("response")
    lists = [params.get("input") if isinstance(params, dict) else None, value.get("output")]
    lists.append(response.get("output") if isinstance(response, dict) else None)
    if any(isinstance(item, list) for item in listed(lists[0])):
        return False
    if any(len({isinstance(item, list) for item in listed(found)}) > 1 for found in lists):
        return False
    items = [item for found in lists if isinstance(found, list) for item in found]
    items += [inner for item in items if isinstance(item, list) for inner in item]
    parts = [
        part
        for item in items
        if isinstance(item, dict)
        for name in ("content", "output")
        for part in listed(item.get(name))
    ]
    tools = listed(params.get("tools")) if isinstance(params, dict) else []
    tools += listed(response.get("tools")) if isinstance(response, dict) else []
    tools += [inner for tool in tools if isinstance(tool, dict) for inner in listed(tool.get("tools"))]
    tools += [tool["function"] for tool in tools if isinstance(tool, dict) and "function" in tool]
    return (
        all(isinstance(item, (dict, list)) for item in items)
        and all(
            typed(item, "type", "role") and item.get("tool_calls") is None for item in items if isinstance(item, dict)
        )
        and all(isinstance(part, dict) and typed(part, "type") for part in parts)
        and all(isinstance(tool, dict) and typed(tool, "type") for tool in tools)
        and (not isinstance(params, dict) or isinstance(params.get("tools"), (list, type(None))))
        and (not isinstance(response, dict) or isinstance(response.get("tools"), (list, type(None))))
        and (not isinstance(params, dict) or isinstance(params.get("instructions"), (str, type(None))))
    )


def listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def typed(value: dict[str, Any], *names: str) -> bool:
    return all(isinstance(value[name], str) for name in names if name in value)


@pytest.mark.filterwarnings("ignore:Generating overly large repr")
@given(
    rollouts=st.lists(_ROLLOUT.filter(well_typed), min_size=1, max_size=5),
    layout=st.sampled_from(["openai", "chat", "simple"]),
)
@settings(max_examples=300, suppress_health_check=list(HealthCheck), deadline=None)
def test_rollouts_with_anything_anywhere(tmp_path_factory, rollouts, layout):
    data = b"".join(json.dumps(rollout, ensure_ascii=False).encode() + b"\n" for rollout in rollouts)
    agree(data, tmp_path_factory.mktemp("any"), layout, -1e9)
