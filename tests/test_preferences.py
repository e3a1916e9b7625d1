"""What `fastsft check` finds in pairs of a chosen and a rejected side, and in sides with a label, in every format."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from builders import Json, assistant, chat_call, line, lines, rollout, said, tool, turn, user

import fastsft
from fastsft.checks.preferences import PREFERENCES, Preference, kind_of_row, preference_of

ASKED, GOOD, BAD = turn("user", "2+2?"), assistant("4"), assistant("5")
OFFERED = [{"type": "function", "function": {"name": "add", "description": "Adds.", "parameters": {}}}]
CALLING = {**turn("assistant", ""), "tool_calls": [chat_call("add", '{"a": 2}')]}


def nemo_rl(context: Any, *sides: Any, ranks: Any = (0, 1), **more: Any) -> Json:
    completions = [{"rank": rank, "completion": side} for rank, side in zip(ranks, sides, strict=True)]
    return {"context": context, "completions": completions, **more}


def trl(prompt: Any, chosen: Any, rejected: Any, **more: Any) -> Json:
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected, **more}


def binary(prompt: Any, chosen: Any, rejected: Any, **more: Any) -> Json:
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected, **more}


def kto(prompt: Any, completion: Any, label: Any, **more: Any) -> Json:
    return {"prompt": prompt, "completion": completion, "label": label, **more}


def openai(messages: Any, preferred: Any, other: Any, **more: Any) -> Json:
    return {"input": {"messages": messages, **more}, "preferred_output": preferred, "non_preferred_output": other}


def llama_factory(messages: Any, chosen: Any, rejected: Any, **more: Any) -> Json:
    return {"messages": messages, "chosen": chosen, "rejected": rejected, **more}


def sharegpt(role: str, text: str) -> Json:
    return {"from": role, "value": text}


def found(path: Path, *rows: Json, **options: Any) -> tuple[dict[str, int], dict[str, int]]:
    """Faults and notes, with how many rows have them."""
    path.write_bytes(lines(*rows))
    report = fastsft.check(path, jobs=1, **options)
    return tuple({one.kind: one.rows for one in several} for several in (report.findings, report.notes))


CLEAN = {
    "nemo-rl": nemo_rl([ASKED], [GOOD], [BAD]),
    "trl": trl([ASKED], [GOOD], [BAD]),
    "binary": binary("2+2?", "4", "5", reward_gap=1.0, chosen_reward=1.0, rejected_reward=0.0),
    "kto": kto([ASKED], [GOOD], True),
    "openai": openai([ASKED], [GOOD], [BAD]),
    "llama-factory": llama_factory([ASKED], GOOD, BAD),
}


@pytest.mark.parametrize("name", PREFERENCES)
def test_a_format_is_told_by_its_keys_and_read_as_the_same(name):
    rejected = None if name == "kto" else [BAD]

    assert kind_of_row(CLEAN[name]) == name
    read = preference_of(CLEAN[name])
    assert isinstance(read, Preference)
    assert (read.format, read.context, read.chosen, read.rejected) == (name, [ASKED], [GOOD], rejected)


@pytest.mark.parametrize("name", [name for name in PREFERENCES if name != "kto"])
def test_clean_pairs_have_no_findings(tmp_path, name):
    assert found(tmp_path / "rows.jsonl", CLEAN[name]) == ({}, {})


@pytest.mark.parametrize(
    "value",
    [
        rollout(user("?"), said("4")) | {"completion": "4", "label": True},
        {"messages": [ASKED, GOOD]},
        {"input": "2+2?", "output": "4"},
        {"prompt": "2+2?", "completion": "4"},
        [1],
        None,
    ],
)
def test_other_rows_are_no_preferences(value):
    assert kind_of_row(value) not in PREFERENCES


@pytest.mark.parametrize(
    ("value", "shared", "chosen", "rejected"),
    [
        (nemo_rl([ASKED], [BAD], [GOOD], ranks=(1, 0)), [ASKED], [GOOD], [BAD]),
        (nemo_rl([ASKED], [BAD], [GOOD], ranks=(2.5, 1)), [ASKED], [GOOD], [BAD]),
        # As OpenRLHF has it, and TRL without a prompt.
        ({"chosen": [ASKED, GOOD], "rejected": [ASKED, BAD]}, [ASKED], [GOOD], [BAD]),
        (
            {
                "conversations": [sharegpt("human", "2+2?")],
                "chosen": sharegpt("gpt", "4"),
                "rejected": sharegpt("gpt", "5"),
            },
            [ASKED],
            [GOOD],
            [BAD],
        ),
        (binary([ASKED], "4", "5"), [ASKED], [GOOD], [BAD]),
    ],
)
def test_variants_say_the_same(value, shared, chosen, rejected):
    read = preference_of(value)
    assert isinstance(read, Preference)
    assert (read.context, read.chosen, read.rejected) == (shared, chosen, rejected)


# Odd shapes.


@pytest.mark.parametrize(
    ("value", "detail"),
    [
        (nemo_rl([ASKED], [GOOD], ranks=(0,)), "completions: 1, and it takes two"),
        (nemo_rl([ASKED], [GOOD], [BAD], [BAD], ranks=(0, 1, 2)), "completions: 3, and it takes two"),
        ({"context": [ASKED], "completions": {"0": 1}}, "completions: dict, and it takes two"),
        (nemo_rl([ASKED], [GOOD], [BAD], ranks=(0, "1")), "completion 1 has no rank that is a number"),
        (nemo_rl([ASKED], [GOOD], [BAD], ranks=(True, 0)), "completion 0 has no rank that is a number"),
        ({"context": [ASKED], "completions": [1, 2]}, "completion 0 has no rank that is a number"),
        (nemo_rl([ASKED], "4", [BAD]), "completion 0 is no list of messages"),
        (nemo_rl([ASKED], [], [BAD]), "completion 0 is empty"),
        (nemo_rl("2+2?", [GOOD], [BAD]), "context is no list of messages"),
        ({"completions": CLEAN["nemo-rl"]["completions"]}, "context is no list of messages"),
        (trl([ASKED], [GOOD], None), "rejected is no list of messages"),
        ({"prompt": [ASKED], "chosen": [GOOD]}, "rejected is no list of messages"),
        (trl("2+2?", [GOOD], [BAD]), "prompt is no list of messages"),
        (trl([ASKED], ["4"], [BAD]), "chosen is no list of messages"),
        (binary("2+2?", "4", [BAD]), "rejected is no text, and the other side is"),
        (binary(None, "4", "5"), "prompt is no list of messages"),
        (kto([ASKED], [GOOD], 1), "the label is neither true nor false but a int"),
        (kto("2+2?", [GOOD], True), "prompt and completion are text and messages"),
        (kto([ASKED], [], True), "completion is empty"),
        ({**CLEAN["openai"], "input": "2+2?"}, "input is no object with messages"),
        ({"input": {"messages": [ASKED]}, "preferred_output": [GOOD]}, "non_preferred_output is no list of messages"),
        (llama_factory([ASKED], GOOD, [BAD]), "rejected is not one message"),
        (llama_factory("2+2?", GOOD, BAD), "messages is no list of messages"),
    ],
)
def test_odd_shapes_are_told(tmp_path, value, detail):
    (tmp_path / "rows.jsonl").write_bytes(line(value))

    (only,) = fastsft.check(tmp_path / "rows.jsonl", jobs=1).findings

    assert (only.kind, only.examples[0].detail) == ("bad_pair", detail)


@pytest.mark.parametrize(
    "value",
    [
        nemo_rl([ASKED], [GOOD], [BAD], ranks=(1, 1)),
        nemo_rl([ASKED], [GOOD], [BAD], ranks=(0, 0.0)),
        binary("2+2?", "4", "5", chosen_reward=0.5, rejected_reward=0.5),
        binary("2+2?", "4", "5", chosen_reward=0, rejected_reward=1),
    ],
)
def test_ties_are_found(tmp_path, value):
    assert found(tmp_path / "rows.jsonl", value) == ({"tie": 1}, {})


# What the sides say.


@pytest.mark.parametrize(
    "value",
    [
        nemo_rl([ASKED], [GOOD], [GOOD]),
        trl([ASKED], [GOOD], [GOOD]),
        binary("2+2?", "4", "4"),
        openai([ASKED], [GOOD], [GOOD]),
        llama_factory([ASKED], GOOD, GOOD),
        {"chosen": [ASKED, GOOD], "rejected": [ASKED, GOOD]},
    ],
)
def test_equal_sides_are_found(tmp_path, value):
    assert found(tmp_path / "rows.jsonl", value)[0] == {"same_sides": 1}


OTHER = turn("user", "3+3?")


@pytest.mark.parametrize(
    "value",
    [
        nemo_rl([ASKED], [GOOD, OTHER, GOOD], [BAD, OTHER, BAD]),
        {"chosen": [ASKED, GOOD], "rejected": [OTHER, BAD]},
    ],
)
def test_sides_that_answer_different_contexts_are_found(tmp_path, value):
    assert found(tmp_path / "rows.jsonl", value)[0] == {"other_context": 1}


@pytest.mark.parametrize(
    "value",
    [
        nemo_rl([ASKED], [GOOD], [BAD, OTHER]),
        trl([ASKED], [GOOD, OTHER], [BAD]),
        kto([ASKED], [GOOD, OTHER], True),
        openai([ASKED], [GOOD], [BAD, OTHER]),
        llama_factory([ASKED], GOOD, OTHER),
    ],
)
def test_a_side_that_does_not_end_with_the_assistant_is_found(tmp_path, value):
    assert "last_role" in found(tmp_path / "rows.jsonl", value)[0]


def test_the_chosen_side_is_judged_as_a_conversation_and_the_rejected_may_be_bad(tmp_path):
    empty, stray = assistant(""), assistant("hm</think>4")

    assert found(tmp_path / "rows.jsonl", trl([ASKED], [GOOD], [empty]), trl([ASKED], [GOOD], [stray])) == ({}, {})
    assert found(tmp_path / "rows.jsonl", trl([ASKED], [empty], [BAD]), trl([ASKED], [stray], [BAD])) == (
        {"empty_turn": 1, "stray_think_tag": 1}, {},
    )  # fmt: skip
    broken = {**turn("assistant", ""), "tool_calls": [chat_call("add", "[2]")]}
    (tmp_path / "rows.jsonl").write_bytes(line(trl([ASKED], [GOOD], [broken], tools=OFFERED)))
    (only,) = fastsft.check(tmp_path / "rows.jsonl", jobs=1).findings
    assert (only.kind, only.examples[0].detail) == ("bad_arguments", 'rejected: message 1: "[2]"')


def test_tools_that_nemo_rl_drops_are_noted(tmp_path):
    with_object = {**turn("assistant", ""), "tool_calls": [chat_call("add", {"a": 2})]}
    path = tmp_path / "rows.jsonl"

    assert found(path, nemo_rl([ASKED], [CALLING], [BAD])) == ({}, {"tools_dropped": 1})
    assert found(path, nemo_rl([ASKED], [GOOD], [BAD], tools=OFFERED)) == ({}, {"tools_dropped": 1})
    assert found(path, nemo_rl([ASKED], [GOOD], [with_object])) == ({}, {"tools_dropped": 1, "object_arguments": 1})
    assert found(path, trl([ASKED], [with_object], [BAD], tools=OFFERED)) == ({}, {})


def test_tool_results_under_loss_are_noted(tmp_path):
    whole = [CALLING, tool("4", id="call_1"), GOOD]

    assert found(tmp_path / "rows.jsonl", trl([ASKED], whole, [BAD], tools=OFFERED)) == (
        {}, {"results_trained": 1, "string_arguments": 1},
    )  # fmt: skip
    assert found(tmp_path / "rows.jsonl", trl([ASKED], [GOOD], whole, tools=OFFERED))[1] == {"results_trained": 1}


# What all pairs together say.


@pytest.mark.parametrize(
    ("lengths", "is_found"),
    [
        ([(20, 10)] * 10, True),
        ([(20, 10)] * 9, False),  # too few
        ([(20, 10)] * 6 + [(10, 20)] * 4, False),  # not systematic
        ([(101, 100)] * 10, False),  # hardly longer
        ([(10, 20)] * 10, False),
    ],
)
def test_chosen_sides_that_are_longer_are_noted_with_both_means(tmp_path, lengths, is_found):
    rows = [binary(f"{n}?", "a" * chosen, "b" * rejected) for n, (chosen, rejected) in enumerate(lengths)]

    assert ("longer_chosen" in found(tmp_path / "rows.jsonl", *rows)[1]) is is_found
    report = fastsft.check(tmp_path / "rows.jsonl", jobs=1)
    bare = len(json.dumps([assistant("")], separators=(",", ":")))
    chosen, rejected = (sum(pair[side] for pair in lengths) / len(lengths) + bare for side in (0, 1))
    longer = sum(one > other for one, other in lengths) / len(lengths)
    assert report.sides == pytest.approx(
        {"pairs": len(lengths), "chosen": chosen, "rejected": rejected, "longer": longer}, abs=0.001
    )


def test_the_command_always_tells_the_mean_lengths(tmp_path):
    (tmp_path / "rows.jsonl").write_bytes(lines(trl([ASKED], [assistant("four")], [BAD])))

    done = subprocess.run(
        [sys.executable, "-m", "fastsft", "check", "rows.jsonl"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert "\n1 pair: chosen 39 bytes on average, rejected 36; longer in 100%\n" in done.stdout


@pytest.mark.parametrize(("good", "bad", "is_found"), [(4, 3, False), (5, 3, True), (3, 5, True), (0, 1, True)])
def test_labels_that_are_not_even_are_noted(tmp_path, good, bad, is_found):
    rows = [kto([turn("user", f"{n}?")], [GOOD], n < good) for n in range(good + bad)]

    assert found(tmp_path / "rows.jsonl", *rows) == ({}, {"uneven_labels": good + bad} if is_found else {})


def test_formats_do_not_mix_in_one_file(tmp_path):
    assert found(tmp_path / "rows.jsonl", CLEAN["nemo-rl"], CLEAN["nemo-rl"], CLEAN["trl"])[0] == {
        "mixed_rows": 1, "duplicate": 1,
    }  # fmt: skip


# With a template.


def test_a_pair_is_too_long_where_one_side_is(tmp_path, tokenizer):
    rows = [trl([ASKED], [GOOD], [assistant("a " * 20)]), trl([ASKED], [assistant("b " * 20)], [BAD])]
    (tmp_path / "rows.jsonl").write_bytes(lines(*rows, CLEAN["trl"]))

    report = fastsft.check(tmp_path / "rows.jsonl", template=tokenizer, max_tokens=10, jobs=1)

    (only,) = report.findings
    assert (only.kind, [one.detail for one in only.examples]) == (
        "too_long", ["rejected: 22 tokens", "chosen: 22 tokens"],
    )  # fmt: skip
    assert (report.lengths["tokens"]["0.5"], report.lengths["tokens"]["1.0"]) == (22, 22)


def test_both_sides_are_rendered_and_tools_are_not_where_nemo_rl_drops_them(tmp_path):
    template = tmp_path / "t.jinja"
    template.write_text(
        "{% for m in messages %}{{ m.content }}{% if m.content == '5' and tools %}"
        "{{ raise_exception('five') }}{% endif %}{% endfor %}"
    )
    shown = fastsft.check  # with the template, the pair stops in TRL's rendering alone
    for value, expected in ((trl([ASKED], [GOOD], [BAD], tools=OFFERED), ["template_stops"]),
                            (nemo_rl([ASKED], [GOOD], [BAD], tools=OFFERED), [])):  # fmt: skip
        (tmp_path / "rows.jsonl").write_bytes(line(value))
        report = shown(tmp_path / "rows.jsonl", template=template, jobs=1)
        stops = [one for one in report.findings if one.kind == "template_stops"]
        assert [one.kind for one in stops] == expected
        assert all(one.examples[0].detail.startswith("rejected: ") for one in stops)


# As a person reads them.


@pytest.mark.parametrize("name", PREFERENCES)
def test_show_shows_both_sides(tmp_path, name):
    (tmp_path / "rows.jsonl").write_bytes(line(CLEAN[name]))

    done = subprocess.run(
        [sys.executable, "-m", "fastsft", "show", "rows.jsonl"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )

    sides = ["── the side", "", "[assistant]", "4"]
    if name != "kto":
        sides = ["── chosen", "", "[assistant]", "4", "", "── rejected", "", "[assistant]", "5"]
    what = "a good side" if name == "kto" else "a pair"
    assert done.stdout.splitlines()[2:] == [f"{what} ({name})", "", "[user]", "2+2?", "", *sides]


@pytest.mark.parametrize("seed", range(3))
def test_hostile_values_anywhere_never_stop_the_check(tmp_path, seed):
    import random

    draw = random.Random(seed)
    odd: list[Any] = [None, 1, "", [], {}, True, [1], {"a": 1}, "x", 1.5, [[]], [None], {"role": 5}, [{"role": "user"}]]

    def spoiled(value: Any) -> Any:
        if draw.random() < 0.15:
            return draw.choice(odd)
        if isinstance(value, dict):
            return {key: spoiled(inner) for key, inner in value.items()}
        return [spoiled(inner) for inner in value] if isinstance(value, list) else value

    full = [*CLEAN.values(), nemo_rl([ASKED, CALLING, tool("4", id="call_1")], [CALLING], [BAD], tools=OFFERED)]
    rows = [spoiled(value) for _ in range(60) for value in full]
    (tmp_path / "rows.jsonl").write_bytes(
        lines(*[value if isinstance(value, dict) else {"x": value} for value in rows])
    )

    assert fastsft.check(tmp_path / "rows.jsonl", jobs=1).lines == len(rows)
