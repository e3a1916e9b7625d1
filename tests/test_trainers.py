"""Rows for a trainer: what `--for` sets, what it leaves out, what `check --for` says; each form against its loader's.

The loaders themselves read such rows in `engine_loaders.py` (`tox -e engines`).
"""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
from builders import call, chat_call, line, lines, returned, rollout, said, system, thought, turn, user
from test_checks import calling, row

import fastsft
from fastsft import TRAINERS, UsageError, choices
from fastsft.checks.kinds import KINDS
from fastsft.configs.nemo_rl import write_config
from fastsft.configs.nemo_rl_config import Training
from fastsft.formats import CHOICES, FORMATS
from fastsft.options import GATES, Options, declared
from fastsft.storage.compression import SUFFIXES
from fastsft.trainers.trainer import UNREADABLE

SCHEMA = {"type": "object", "properties": {}}
OFFERED = {"type": "function", "name": "add", "parameters": SCHEMA}
NESTED = {"type": "function", "function": {"name": "add", "parameters": SCHEMA}}
CALLED = rollout(
    user("2+2?"), thought("Add."), call("add", a=2, b=2), returned("4"), said("It is 4."), tools=[OFFERED]
)  # fmt: skip
IMAGE = [{"type": "input_text", "text": "What?"}, {"type": "input_image", "image_url": "http://x/y.png"}]
SEEN = rollout(user(IMAGE), said("A cat."))


def made(value: Any, trainer: str, **options: Any) -> dict[str, Any]:
    return fastsft.to_row(line(value), trainer=trainer, **options)


# What is set.

ASKED, RESULT, LAST = (
    turn("user", "2+2?"),
    {**turn("tool", "4"), "tool_call_id": "call_1"},
    turn("assistant", "It is 4."),
)
OBJECT, STRING = chat_call("add", {"a": 2, "b": 2}), chat_call("add", '{"a": 2, "b": 2}')


@pytest.mark.parametrize(
    ("trainer", "expected"),
    [
        ("nemo-rl", row(ASKED, {**calling(OBJECT), "reasoning_content": "Add."}, RESULT, LAST, tools=[NESTED])),
        ("trl", row(ASKED, {**calling(OBJECT), "reasoning_content": "Add."}, RESULT, LAST, tools="NESTED")),
        (
            "axolotl",
            row(
                ASKED,
                {**calling(STRING), "reasoning_content": "Add.", "weight": 1},
                RESULT,
                {**LAST, "weight": 1},
                tools="NESTED",
            ),
        ),
        ("verl", row(ASKED, {**calling(STRING), "reasoning_content": "Add."}, RESULT, LAST, tools="NESTED")),
        ("llama-factory", row(ASKED, calling(OBJECT, content="<think>Add.</think>"), RESULT, LAST, tools="NESTED")),
        (
            "openai",
            row(ASKED, {**calling(STRING), "weight": 1}, RESULT, {**LAST, "weight": 1}, tools=[NESTED]),
        ),
        ("automodel", row(ASKED, {**calling(STRING), "reasoning_content": "Add."}, RESULT, LAST, tools=[NESTED])),
    ],
)
def test_a_row_has_the_form_that_the_loader_reads(trainer, expected):
    found = made(CALLED, trainer)

    if expected["tools"] == "NESTED":
        expected = {**expected, "tools": json.dumps([NESTED], separators=(",", ":"))}
    assert found == expected


def test_pairs_have_the_columns_of_the_trainer():
    assert made(rollout(user("2+2?"), said("4")), "trl", format="simple") == {"prompt": "2+2?", "completion": "4"}
    assert made(rollout(user("2+2?"), said("4")), "nemo-rl", format="simple") == {"input": "2+2?", "output": "4"}


def test_what_is_given_beside_a_trainer_wins():
    assert made(CALLED, "trl", tools="list")["tools"] == [NESTED]
    assert "reasoning_content" not in made(CALLED, "automodel", reasoning="drop")["messages"][1]
    assert made(CALLED, "nemo-rl", format="openai")["messages"][1]["tool_calls"] == [
        {"name": "add", "arguments": {"a": 2, "b": 2}}
    ]


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"trainer": "verl", "tools": "list"}, "--tools list is not for verl: it reads --tools string"),
        ({"trainer": "nemo-rl", "tools": "string"}, "--tools string is not for NeMo RL: it reads --tools list"),
        ({"trainer": "trl", "loss": "own"}, "--loss own is not for TRL: it reads no marks"),
        ({"trainer": "axolotl", "format": "simple"}, "--format simple is not for Axolotl: it reads --format chat"),
        (
            {"trainer": "openai", "reasoning": "field"},
            "--reasoning field is not for the OpenAI API: it reads --reasoning drop or --reasoning think",
        ),
        (
            {"trainer": "openai", "provenance": ("line",)},
            "--with is not for the OpenAI API: what it does with another column is not known",
        ),
        (
            {"trainer": "verl", "compress": "gz"},
            "--compress is not for verl: it reads Parquet, which is compressed inside",
        ),
        (
            {"trainer": "llama-factory", "format": "simple", "arguments": "object"},
            "--arguments belongs to the format chat, and this is simple",
        ),
        ({"trainer": "unsloth"}, f"no trainer named 'unsloth'; there are: {', '.join(TRAINERS)}"),
    ],
)
def test_what_contradicts_a_trainer_is_refused(options, problem):
    with pytest.raises(UsageError) as caught:
        Options(**options)
    assert str(caught.value) == problem


def test_the_report_says_what_was_set(tmp_path):
    (tmp_path / "in.jsonl").write_bytes(line(CALLED))

    report = fastsft.convert(tmp_path / "in.jsonl", tmp_path / "rows.jsonl", trainer="trl", tools="list")

    assert report.notes == [
        "rows for TRL: --format chat --arguments object --reasoning field (fastsft docs trainers)",
    ]
    chosen = {name: report.options[name] for name in ("trainer", "format", "arguments", "reasoning", "loss", "tools")}
    assert chosen == {
        "trainer": "trl", "format": "chat", "arguments": "object", "reasoning": "field", "loss": None, "tools": "list",
    }  # fmt: skip


# What is left out.


def took(*turns: Any) -> Any:
    return rollout(list(turns[:-1]), turns[-1])


LEFT_OUT = [
    ("trl", SEEN, "trl:parts"),
    ("axolotl", SEEN, "axolotl:parts"),
    ("verl", SEEN, "verl:parts"),
    ("automodel", SEEN, "automodel:parts"),
    ("llama-factory", SEEN, "llama-factory:parts"),
    ("nemo-rl", rollout(user([{"type": "input_audio", "input_audio": {}}]), said("4")), "nemo-rl:media_parts"),
    ("openai", took(user("?"), {**said("x"), "content": IMAGE}, user("?"), said("4")), "openai:media_place"),
    ("openai", rollout(user("?"), call("a b"), returned("4"), said("4")), "openai:function_name"),
    ("openai", rollout(user("?"), said("4"), tools=[{"type": "web_search"}]), "openai:function_name"),
    ("openai", rollout(user("?"), call("add"), user("?"), said("4")), "openai:unanswered_call"),
    ("llama-factory", took(user("?"), system("Add."), said("4")), "llama-factory:no_turns_taken"),
    ("llama-factory", took(user("?"), user("?"), said("4")), "llama-factory:no_turns_taken"),
    ("automodel", rollout([said("Hello."), user("?")], said("4")), "automodel:assistant_first"),
]


@pytest.mark.parametrize(("trainer", "value", "reason"), LEFT_OUT)
@pytest.mark.parametrize("options", [{}, {"best_of": 1}, {"dedup": True}])
def test_what_a_loader_stops_at_is_dropped_with_a_reason_of_its_own(trainer, value, reason, options, tmp_path):
    (tmp_path / "in.jsonl").write_bytes(lines(CALLED, value))
    output = tmp_path / ("rows.parquet" if trainer == "verl" else "rows.jsonl")

    report = fastsft.convert(tmp_path / "in.jsonl", output, trainer=trainer, **options)

    assert (report.fates.kept, report.fates.dropped) == (1, {reason: 1})


def test_an_index_knows_what_the_trainer_stops_at_and_serves_no_other(tmp_path):
    (tmp_path / "in.jsonl").write_bytes(lines(CALLED, SEEN))
    fastsft.index(tmp_path / "in.jsonl", tmp_path / "i.parquet", trainer="trl")

    report = fastsft.convert(
        tmp_path / "in.jsonl", tmp_path / "rows.jsonl", trainer="trl", index=tmp_path / "i.parquet", best_of=1
    )

    assert report.fates.dropped == {"trl:parts": 1}
    with pytest.raises(UsageError, match="and the same --for"):
        fastsft.convert(tmp_path / "in.jsonl", tmp_path / "o.jsonl", index=tmp_path / "i.parquet", format="chat")


def test_one_row_that_the_trainer_does_not_read_says_so():
    with pytest.raises(fastsft.Refused) as caught:
        made(SEEN, "trl")
    assert caught.value.reason == "trl:parts"


def test_nothing_kept_for_a_trainer_says_where_to_look(tmp_path):
    (tmp_path / "in.jsonl").write_bytes(line(SEEN))
    with pytest.raises(fastsft.FailedRun, match="fastsft check --for trl says why, of rows made without --for"):
        fastsft.convert(tmp_path / "in.jsonl", tmp_path / "rows.jsonl", trainer="trl")


@pytest.mark.parametrize(("trainer", "format"), [(one.name, name) for one in TRAINERS.values() for name in one.format])
def test_every_row_that_is_written_passes_the_check_of_its_trainer(trainer, format, real_rollouts, tmp_path):
    output = tmp_path / ("rows.parquet" if trainer == "verl" else "rows.jsonl")
    options = {} if trainer == "openai" else {"provenance": "reward,agent,task,shard,line"}

    report = fastsft.convert(
        real_rollouts, output, trainer=trainer, format=format, reward_threshold=-1e9, allow="all", **options
    )
    checked = fastsft.check(output, trainer=trainer)

    assert checked.findings == []
    assert checked.rows == report.fates.kept > 150


# What `check --for` says.


def found(path: Path, value: Any, trainer: str) -> tuple[set[str], set[str]]:
    path.write_bytes(line(value))
    report = fastsft.check(path, trainer=trainer)
    return tuple({one.kind for one in several} for several in (report.findings, report.notes))


FLAT = {"name": "add", "arguments": {}}
PLAIN_RESULT = turn("tool", "4")


@pytest.mark.parametrize(
    ("trainer", "value", "faults", "notes"),
    [
        ("trl", row(ASKED, calling(OBJECT), RESULT, LAST, tools=json.dumps([NESTED])), set(), set()),
        ("nemo-rl", row(ASKED, calling(OBJECT), RESULT, LAST, tools=json.dumps([NESTED])), {"string_tools"}, set()),
        ("nemo-rl", row(ASKED, calling(STRING), RESULT, LAST, tools=[NESTED]), set(), {"string_arguments"}),
        ("axolotl", row(ASKED, calling(STRING), RESULT, LAST, tools=[NESTED]), set(), set()),
        ("llama-factory", row(ASKED, calling(STRING), RESULT, LAST, tools=[NESTED]), {"string_arguments"}, set()),
        (
            "llama-factory",
            row(ASKED, calling(OBJECT, content="Let me."), RESULT, LAST, tools=[NESTED]),
            set(),
            {"text_beside_calls"},
        ),
        ("llama-factory", row(ASKED, {**LAST, "reasoning_content": "Add."}), set(), {"reasoning_field"}),
        ("llama-factory", row(ASKED, calling(FLAT), RESULT, LAST, tools=[NESTED]), {"flat_calls"}, set()),
        ("automodel", row(ASKED, calling(FLAT), RESULT, LAST, tools=[NESTED]), {"flat_calls"}, set()),
        ("automodel", row(ASKED, calling(STRING), PLAIN_RESULT, LAST, tools=[NESTED]), {"no_call_id"}, set()),
        ("automodel", row(turn("developer", "Add."), ASKED, LAST), {"developer_role"}, set()),
        ("openai", row(ASKED, calling(OBJECT), RESULT, LAST, tools=[NESTED]), {"arguments_no_string"}, set()),
        ("openai", row(ASKED, {**LAST, "reasoning_content": "Add."}), {"reasoning_field"}, set()),
        ("openai", row(turn("developer", "Add."), ASKED, LAST), set(), set()),
        (
            "verl",
            row(ASKED, calling(OBJECT), RESULT, LAST, tools=[NESTED]),
            {"arguments_no_string", "list_tools"},
            set(),
        ),
        (
            "trl",
            row(ASKED, calling(chat_call("add", {"a": 0.1234567890123})), RESULT, LAST, tools=[NESTED]),
            set(),
            {"rounded_numbers"},
        ),
        ("trl", {"input": "2+2?", "output": "4"}, {"columns"}, set()),
        ("trl", {"prompt": "2+2?", "completion": "4"}, set(), set()),
        ("nemo-rl", {"prompt": "2+2?", "completion": "4"}, {"columns"}, set()),
        ("axolotl", {"input": "2+2?", "output": "4"}, {"columns"}, set()),
        ("trl", row(ASKED, LAST, turn("user", "Thanks.")), set(), {"last_role"}),
        ("nemo-rl", row(ASKED, LAST, turn("user", "Thanks.")), {"last_role"}, set()),
    ],
)
def test_a_row_is_judged_by_the_rules_of_the_trainer_alone(trainer, value, faults, notes, tmp_path):
    more = {"file_kind"} if trainer == "verl" else set()  # which reads Parquet
    assert found(tmp_path / "rows.jsonl", value, trainer) == (faults | more, notes)


def test_rows_of_one_kind_of_file_are_not_for_a_trainer_of_another(tmp_path):
    (tmp_path / "in.jsonl").write_bytes(line(CALLED))
    fastsft.convert(tmp_path / "in.jsonl", tmp_path / "rows.parquet", trainer="verl")

    assert [one.kind for one in fastsft.check(tmp_path / "rows.parquet", trainer="verl").findings] == []
    assert "file_kind" in [one.kind for one in fastsft.check(tmp_path, trainer="nemo-rl").findings if one]


def test_a_trainer_speaks_of_findings_and_choices_that_there_are():
    for name, one in TRAINERS.items():
        assert one.name == name
        assert one.stops | one.loses | one.takes <= KINDS.keys()
        assert not one.stops & one.takes
        assert set(one.format) <= FORMATS.keys()
        Options(trainer=name)
        for setting in ("arguments", "reasoning", "tools", "loss"):
            assert set(getattr(one, setting)) - {None} <= set(declared()[setting].choices)


def test_the_page_has_the_table_of_what_trainers_read():
    def told(values: Any) -> str:
        return ", ".join("none" if value is None else f"`{value}`" for value in values)

    page = (Path(__file__).parent.parent / "fastsft/docs/trainers.md").read_text()
    for one in TRAINERS.values():
        marks = f"`own` ({told(one.marks)}), none" if "own" in one.loss else "none"
        cells = [f"`{one.name}`", *map(told, (one.format, one.arguments, one.reasoning, one.tools)), marks]
        cells += [
            told(one.file[:1]),
            told(sorted(one.stops - UNREADABLE)),
            "taken" if one.takes_metadata else "refused",
        ]
        assert f"\n| {' | '.join(cells)} |\n" in page
        assert one.source in page


# Closed choices are types.


@pytest.mark.parametrize(
    ("kind", "registry"),
    [
        (choices.FormatName, FORMATS),
        (choices.TrainerName, TRAINERS),
        (choices.Gate, (*GATES, "all")),
        (choices.Compression, SUFFIXES),
        (choices.Backend, declared()["backend"].choices),
        *((getattr(choices, name.title()), declared()[name].choices) for name in sorted(CHOICES["chat"])),
    ],
)
def test_a_closed_choice_lists_what_there_is(kind, registry):
    assert get_args(kind) == tuple(registry)


def test_rows_take_the_keywords_of_convert_but_for_those_of_files():
    of_files = {
        *("splits", "index", "max_refused_recorded", "shards", "shard_size", "name", "compress", "fresh"),
        *("card", "verify_inputs", "part", "work", "log", "on_progress", "inputs", "output"),
    }
    assert get_type_hints(choices.RowOptions).keys() == inspect.signature(fastsft.convert).parameters.keys() - of_files


def test_a_wrong_word_is_a_type_error(tmp_path):
    pytest.importorskip("mypy", reason="mypy is no dependency of the tests")
    script = tmp_path / "session.py"
    script.write_text(
        "import fastsft\n"
        'fastsft.convert("in", "out", format="chat", trainer="trl", provenance=["line"], allow=["masked"])\n'
        'fastsft.convert("in", "out", format="sharegpt")\n'
        'fastsft.convert("in", "out", trainer="unsloth")\n'
        'fastsft.to_row({}, arguments="text")\n'
        'fastsft.rows("in", format="sharegpt")\n'
        'fastsft.check("rows", trainer="x")\n'
    )

    words = ["--strict", "--cache-dir", str(tmp_path / "cache"), "--follow-imports=silent", str(script)]
    told = subprocess.run([sys.executable, "-m", "mypy", *words], capture_output=True, text=True).stdout  # not in here:
    # it lets this process recurse deeper, and then msgspec reads what nests too deep

    assert [int(problem.split(":")[1]) for problem in told.splitlines()[:-1]] == [3, 4, 5, 6, 7]


def test_the_summary_names_the_check_for_the_trainer(tmp_path):
    (tmp_path / "in.jsonl").write_bytes(line(CALLED))
    words = [sys.executable, "-m", "fastsft", "convert", "in.jsonl", "--for", "verl", "--output", "rows.parquet"]

    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=True)

    assert "fastsft check --for verl rows.parquet" in done.stdout
    told = "rows for verl: --format chat --arguments string --reasoning field --tools string, Parquet"
    assert told in " ".join(done.stdout.split())


def test_nemo_rl_is_told_of_parquet(tmp_path):
    (tmp_path / "in.jsonl").write_bytes(line(CALLED))
    fastsft.convert(tmp_path / "in.jsonl", tmp_path / "rows.parquet", trainer="verl")

    with pytest.raises(UsageError, match="is Parquet, and NeMo RL reads JSON lines; convert with --for nemo-rl"):
        write_config([tmp_path / "rows.parquet"], [], tmp_path / "sft.yaml", Training())
