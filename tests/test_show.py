"""`fastsft show`: which lines it finds, with what becomes of them; rows beside rollouts; what a trainer sees."""

from __future__ import annotations

import gzip
import json
import os
import pty
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import generate
import pytest
from builders import assistant, call, line, lines, returned, rollout, said, thought, turn, user

import fastsft
from fastsft.errors import FailedRun, UsageError
from fastsft.inputs.places import Place, all_lines, drawn_of, drawn_places, lines_at
from fastsft.inputs.shards import find_shards
from fastsft.options import Options
from fastsft.pipeline import finding
from fastsft.pipeline.finding import find_lines
from fastsft.pipeline.search import Search
from fastsft.reasons import DROPPED, REFUSED
from fastsft.selection.entries import PAIR_REASONS
from fastsft.trainers import TRAINERS
from fastsft.views.preview import View, shown

TEMPLATES = Path(__file__).parent / "data" / "templates"


def good(answer: str = "4", *, prompt: str = "2+2?", **more: Any) -> dict[str, Any]:
    return {**rollout(user(prompt), said(answer)), **more}


def show(*words: object, code: int = 0, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "fastsft", "show", *map(str, words)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == code, done.stderr
    return done.stderr if code else done.stdout


def found(inputs: Any, search: Search | None = None, **options: Any) -> list[tuple[str, int | None, str | None]]:
    """File, line and fate of each line that is found."""
    paths = [str(path) for path in inputs] if isinstance(inputs, list) else [str(inputs)]
    lines_found = find_lines(paths, search or Search(count=10**6), Options(**options), [])
    return [(os.path.basename(one.path), one.line.place.number, one.fate) for one in lines_found]


KEPT = ["a.jsonl:1", "a.jsonl:5", "b.jsonl:1", "b.jsonl:2"]
TWO_ASK = rollout([user("2+2?"), user("Well?")], said("4"))


@pytest.fixture
def folder(tmp_path) -> Path:
    """Two plain shards and a compressed one."""
    (tmp_path / "a.jsonl").write_bytes(lines(good(), good("5", reward=0.5)) + b"\n{\n" + line(good("4")))
    (tmp_path / "b.jsonl").write_bytes(b"\xef\xbb\xbf" + lines(good("6", agent_ref={"name": "math"}), TWO_ASK))
    broken = rollout(user("?"), {**call("add"), "arguments": "[1]"})
    (tmp_path / "c.jsonl.gz").write_bytes(gzip.compress(lines(good("4", mask_sample=True), broken)))
    return tmp_path


def test_the_reasons_are_those_of_the_page():
    page = (Path(fastsft.__file__).parent / "docs/reasons.md").read_text()
    cells = re.findall(r"^\|([^|]+)\|", page, re.MULTILINE)
    named = {name for cell in cells for name in re.findall(r"`(\w+):?…?`", cell)}
    of_others = {"same_task", *PAIR_REASONS, *TRAINERS}  # of `fastsft tasks`, of pairs, and before a finding
    assert {*DROPPED, *REFUSED} == named - (of_others - DROPPED.keys())


@pytest.mark.parametrize(
    ("search", "options", "expected"),
    [
        ({"reason": "below_threshold"}, {}, ["a.jsonl:2"]),
        ({"reason": "bad_json"}, {}, ["a.jsonl:4"]),
        ({"reason": "blank"}, {}, ["a.jsonl:3"]),
        ({"reason": "masked"}, {}, ["c.jsonl.gz:1"]),
        ({"reason": "bad_arguments"}, {}, ["c.jsonl.gz:2"]),
        ({"reason": "refused"}, {}, ["a.jsonl:4", "c.jsonl.gz:2"]),
        ({"reason": "dropped"}, {}, ["a.jsonl:2", "c.jsonl.gz:1"]),
        ({"reason": "kept"}, {}, KEPT),
        ({"reason": "kept", "count": 2}, {}, ["a.jsonl:1", "a.jsonl:5"]),
        ({"reason": "kept"}, {"reward_threshold": 0.5, "allow": ("masked",), "max_reward": 0.5}, ["a.jsonl:2"]),
        ({"reason": "above_max"}, {"max_reward": 0.99}, [*KEPT, "c.jsonl.gz:2"]),
        ({"reason": "untrainable"}, {"trainable": True}, ["b.jsonl:2"]),
        ({"reason": "untrainable:alternation"}, {"trainable": True}, ["b.jsonl:2"]),
        ({"where": "agent = 'math'"}, {}, ["b.jsonl:1"]),
        ({"where": "masked OR reward < 1"}, {}, ["a.jsonl:2", "c.jsonl.gz:1"]),
        ({"where": "reward < 1", "reason": "below_threshold"}, {}, ["a.jsonl:2"]),
        # What compares lines takes the table of the whole run.
        ({"where": "line = 2"}, {}, ["a.jsonl:2", "b.jsonl:2", "c.jsonl.gz:2"]),
        ({"where": "reward < MAX(reward)"}, {}, ["a.jsonl:2"]),
        ({"reason": "duplicate"}, {"dedup": True}, ["a.jsonl:5"]),
        ({"reason": "not_best"}, {"best_of": 1}, ["a.jsonl:5", "b.jsonl:1"]),
        ({"reason": "not_best", "where": "agent = 'math'"}, {"best_of": 1}, ["b.jsonl:1"]),
        ({"reason": "kept"}, {"best_of": 1}, ["a.jsonl:1", "b.jsonl:2"]),
        ({"reason": "bad_json"}, {"best_of": 1}, ["a.jsonl:4"]),
        ({"reason": "blank"}, {"best_of": 1}, ["a.jsonl:3"]),
        ({"reason": "refused"}, {"best_of": 1}, ["a.jsonl:4", "c.jsonl.gz:2"]),
        ({}, {"best_of": 1, "allow": ("all",)}, [f"a.jsonl:{n}" for n in (1, 2, 4, 5)]),
    ],
)
def test_lines_are_found_by_what_is_known_of_them_and_what_becomes_of_them(folder, search, options, expected):
    named = [f"{path}:{number}" for path, number, _ in found(folder, Search(**{"count": 99, **search}), **options)]
    assert named[: len(expected)] == expected
    assert len(named) == len(expected) or not search


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"dedup": True, "best_of": 2, "per_agent": 60, "sample": "80%", "pass_rate": (0.1, 1.0)},
        {"trainable": True, "per_task": 1, "format": "simple", "seed": 7},
        {"max_tokens": 2000, "best_of": 1},
    ],
)
@pytest.mark.parametrize("indexed", [False, True])
def test_as_many_lines_are_found_for_each_reason_as_the_report_counts(tmp_path, options, indexed):
    shards = generate.write(tmp_path, "mixed", count=400, nbytes=0, shards=3, seed=5)
    report = fastsft.convert(shards, tmp_path / "out/rows.jsonl", **options)
    if indexed:
        fastsft.index(shards, tmp_path, dedup=True, format=options.get("format", "openai"))
    fates = report.fates
    expected = {"kept": fates.kept, **fates.dropped, **fates.refused, **({"blank": fates.blank} if fates.blank else {})}

    by_reason = {reason: found(shards, Search(count=999, reason=reason), **options) for reason in expected}

    assert {reason: len(places) for reason, places in by_reason.items()} == expected
    places = Counter(place[:2] for several in by_reason.values() for place in several)
    assert (len(places), set(places.values())) == (fates.lines, {1})
    assert len(expected) > 3


@pytest.mark.parametrize(
    ("search", "options", "problem"),
    [
        (
            {"reason": "notbest"},
            {},
            "no reason named 'notbest'; there are:\n  kept, dropped, refused, blank\n  dropped: ",
        ),
        ({"reason": "untrainable:no"}, {"trainable": True}, "no reason named 'untrainable:no'"),
        ({"reason": "masked:no"}, {}, "no reason named 'masked:no'"),
        ({"reason": "not_best"}, {}, "no line is dropped as not_best without --best-of: give it, or --report OUT"),
        ({"reason": "masked"}, {"allow": ("masked",)}, "no line is dropped as masked, as --allow lets it in"),
        ({"reason": "where", "where": "true"}, {}, "--where finds lines here, and drops none"),
        ({"where": "agnt = 'math'"}, {}, "--where names no column of the table: agnt; the columns are: shard, line"),
        ({"count": 0}, {}, "lines are numbered from 1, and at least one is shown"),
        ({"first": 0}, {}, "lines are numbered from 1, and at least one is shown"),
        ({"first": 2}, {}, "--line is of one file, and these are 3"),
        ({"first": 2, "at_random": True}, {}, "--random takes lines from everywhere"),
    ],
)
def test_what_cannot_be_looked_for_is_an_error_that_says_what_can(folder, search, options, problem):
    with pytest.raises(UsageError) as error:
        found(folder, Search(**search), **options)
    assert problem in str(error.value)


@pytest.mark.parametrize(
    ("search", "options", "problem"),
    [
        ({"reason": "too_deep"}, {}, "nothing found: no line of 3 files is refused: too_deep"),
        ({"reason": "pass_rate"}, {"pass_rate": (0.0, 1.0)}, "nothing found: no line of 3 files is dropped: pass_rate"),
        (
            {"reason": "kept", "where": "agent = 'no'"},
            {},
            "nothing found: no line of 3 files is kept and is one of which agent = 'no' is true",
        ),
    ],
)
def test_what_is_not_there_is_an_error_that_says_what_was_looked_for(folder, search, options, problem):
    with pytest.raises(FailedRun) as error:
        found(folder, Search(**search), **options)
    assert str(error.value) == problem


def test_a_damaged_file_is_passed_over_and_noted(folder):
    (folder / "b.jsonl.gz").write_bytes(gzip.compress(lines(*[good()] * 99))[:60])
    notes: list[str] = []
    for search in (Search(count=99, reason="kept"), Search(count=99), Search(count=99, where="line > 0")):
        notes.clear()
        assert len(list(find_lines([str(folder)], search, Options(), notes))) >= 4
        assert [note.split(" ")[:2] for note in notes if "b.jsonl.gz" in note] == [["Skipped", "file:"]]


def test_of_one_line_that_is_too_long_show_says_what_convert_says(monkeypatch, tmp_path):
    shard = tmp_path / "in.jsonl"
    shard.write_bytes(lines(good(), good(padding="x" * 500), good("5")))
    monkeypatch.setattr("fastsft.inputs.places._READ_NBYTES", 100)
    options = Options(max_line_nbytes=400)
    texts = list(shown([str(shard)], Search(count=9), View(), options, []))

    assert [text.splitlines()[2][:23] for text in texts] == [
        "kept; reward 1",
        "refused: line_too_long:",
        "kept; reward 1",
    ]
    assert len(texts[1].splitlines()) == 3
    assert found(shard, Search(reason="line_too_long"), max_line_nbytes=400) == [("in.jsonl", 2, None)]


# At random.


def test_lines_at_random_are_the_same_for_a_seed_and_others_for_another(tmp_path):
    shards = generate.write(tmp_path, "mixed", count=400, nbytes=0, shards=3, seed=5)
    search = Search(count=20, at_random=True)

    drawn = [found(shards, search, seed=seed) for seed in (0, 0, 1)]

    assert drawn[0] == drawn[1] == sorted(drawn[0])
    assert len(set(drawn[0])) == 20
    assert len(set(drawn[0]) & set(drawn[2])) < 10


@pytest.mark.parametrize("options", [{}, {"best_of": 1}])
def test_lines_at_random_are_of_those_that_are_looked_for(tmp_path, options):
    shards = generate.write(tmp_path, "mixed", count=400, nbytes=0, shards=3, seed=5)
    kept = found(shards, Search(count=999, reason="kept"), **options)

    drawn = found(shards, Search(count=9, reason="kept", at_random=True), **options)

    assert len(drawn) == 9
    assert set(drawn) < set(kept)
    assert drawn == sorted(drawn) != kept[:9]


def test_all_of_few_lines_are_drawn_but_the_blank_ones(folder):
    assert [place[:2] for place in found(folder, Search(count=99, at_random=True))] == [
        *(("a.jsonl", number) for number in (1, 2, 4, 5)),
        *(("b.jsonl", number) for number in (1, 2)),
        *(("c.jsonl.gz", number) for number in (1, 2)),
    ]


def test_a_draw_of_few_places_is_as_even_as_the_lines_before_are_long(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b"".join(b"x" * (9 + 200 * (n % 2)) + b"%d\n" % (n % 10) for n in range(10)))
    (tmp_path / "b.jsonl").write_bytes(b"\n\n" + b"y" * 399 + b"\n")
    shards, _ = find_shards([str(tmp_path)])

    drawn = Counter(drawn_places(shards, 1, seed, max_line=10**6)[0] for seed in range(3000))

    before = {0: 211, 211 - 200: 11}  # a line follows a long one or a short one
    assert {offset: 400 < drawn[Place(0, offset)] / length * 1494 / 2 < 2000 for offset, length in before.items()} == {
        0: True,
        11: True,
    }
    assert {place for place in drawn if place.shard_index == 1} == {Place(1, 2)}
    assert len(drawn) == 11


def test_a_large_input_is_drawn_from_without_reading_it(tmp_path, monkeypatch):
    shards = generate.write(tmp_path, "mixed", count=400, nbytes=0, shards=3, seed=5)
    monkeypatch.setattr(finding, "_READ_WHOLE_NBYTES", 1000)
    monkeypatch.setattr(finding, "all_lines", None)
    places = [place for shard in find_shards(map(str, shards))[0] for place in all_lines(shard, max_line=10**9)]

    lines_found = list(find_lines(map(str, shards), Search(count=30, at_random=True), Options(), []))

    assert len(lines_found) == 30
    assert {one.line.data for one in lines_found} <= {one.data for one in places}
    assert {one.line.place.number for one in lines_found} == {None}
    (told,) = shown(map(str, shards), Search(count=1, at_random=True), View(), Options(), [])
    assert re.search(r"\.jsonl, byte [\d,]+$", told.splitlines()[1])


def test_a_line_is_read_again_at_its_place(folder):
    shards, _ = find_shards([str(folder)])
    every = [one for shard in shards for one in all_lines(shard, max_line=10**6)]

    assert list(lines_at([one.place for one in reversed(every)], shards, max_line=10**6)) == every
    assert drawn_of((one.place for one in every), 99, seed=3) == [one.place for one in every]


# By the report of a run.


def test_a_run_says_by_its_report_what_it_read_and_why_it_dropped(folder, monkeypatch):
    monkeypatch.chdir(folder)
    fastsft.convert(
        ["a.jsonl", "c.jsonl.gz"], "out/rows.jsonl", best_of=1, where="reward > 0", format="chat", allow="masked"
    )

    for output in ("out/rows.jsonl", "out/rows.report.json", "out"):
        told = show("--report", output, "--reason", "not_best")
        assert re.findall(r"^(\S+:\d+)\n(.*)$", told, re.MULTILINE) == [
            ("a.jsonl:5", "dropped: not_best; reward 1"),
            ("c.jsonl.gz:1", "dropped: not_best; reward 1"),
        ]
    assert "its row, chat" in show("--report", "out", "--reason", "kept", "--rows")
    assert "its row, simple" in show("--report", "out", "--reason", "kept", "--rows", "--format", "simple")
    assert "b.jsonl:1\nkept" in show("b.jsonl", "--report", "out", "--reason", "kept")
    assert "no line is dropped as masked" in show("--report", "out", "--reason", "masked", code=2)
    assert "is dropped: where" in show("--report", "out", "--reason", "where", code=1)
    with open("a.jsonl", "ab") as file:
        file.write(b"\n")
    assert "a.jsonl has " in show("--report", "out", code=2)
    Path("a.jsonl").unlink()
    assert "cannot read a.jsonl, which that run read" in show("--report", "out", code=2)
    assert "no run: there is no report" in show("--report", "a.jsonl", code=2)
    fastsft.tasks(["b.jsonl"], "tasks.jsonl", pass_rate="0:1")
    assert "tasks.jsonl has the tasks of a run, and no rows" in show("--report", "tasks.jsonl", code=2)


def test_wrong_words_are_told(folder):
    assert "no input" in show(code=2)
    assert "--random says how many" in show(folder, "--random", 3, "-n", 3, code=2)
    assert len(re.findall("^─+$", show(folder, "--random", 3), re.MULTILINE)) == 3
    assert show(folder, "--random", 3) == show(folder, "--random", 3)


# A row and its rollout.


ASKED = rollout(
    user("What is 2+2, and \x1b[31mwhy?"),
    thought("Let me \u202eadd."),
    call("add", a=2, b=2),
    returned("4"),
    said("日本" * 30 + " 4."),
    tools=[{"type": "function", "name": "add"}],
)


def test_a_row_stands_under_its_rollout_on_a_narrow_terminal(tmp_path):
    (tmp_path / "in.jsonl").write_bytes(line(ASKED))

    told = show(tmp_path / "in.jsonl", "--rows", "--format", "chat", COLUMNS="80")

    assert told.splitlines()[2:] == [
        "kept; reward 1",
        "── the rollout ──",
        "tools: add",
        "",
        "── input ──",
        "",
        "[user]",
        "What is 2+2, and \\x1b[31mwhy?",
        "",
        "── output ──",
        "",
        "[reasoning]",
        "Let me \\u202eadd.",
        "",
        "[function_call]",
        '  add({"a": 2, "b": 2})',
        "",
        "[function_call_output]",
        "4",
        "",
        "[assistant]",
        "日本" * 30 + " 4.",
        "",
        "── its row, chat ──",
        "tools: add",
        "",
        "[user]",
        "What is 2+2, and \\x1b[31mwhy?",
        "",
        "[assistant]",
        "<think>",
        "Let me \\u202eadd.",
        "</think>",
        '  calls add({"a":2,"b":2})',
        "",
        "[tool]",
        "4",
        "",
        "[assistant]",
        "日本" * 30 + " 4.",
    ]


def test_a_row_stands_beside_its_rollout_on_a_wide_one(tmp_path):
    (tmp_path / "in.jsonl").write_bytes(line(rollout(user("2+2?\x1b[31m"), said("日本" * 13 + " 4."))))

    told = show(tmp_path / "in.jsonl", "--rows", "--format", "simple", COLUMNS="103").splitlines()[3:]

    sides = [
        ("── the rollout ──", "── its row, simple ──"),
        ("── input ──", "[input]"),
        ("", "2+2?\\x1b[31m"),
        ("[user]", ""),
        ("2+2?\\x1b[31m", "[output]"),
        ("", "日本" * 12 + "日"),
        ("── output ──", "本 4."),
        ("", ""),
        ("[assistant]", ""),
    ]
    assert told[:9] == [f"{left:<50} │ {right}".rstrip() for left, right in sides]
    assert told[9:] == ["日本" * 12 + "日 │", "本 4." + " " * 45 + " │"]


@pytest.mark.parametrize(
    "value",
    [
        good(responses_create_params={"input": "?", "tools": [3], "instructions": ["x"]}),
        good(response={"output": [said("4"), {"type": "message", "role": "assistant", "content": [5, None]}]}),
        good(response=5, output=[said("4")]),
        rollout(user("?"), {"type": "web_search_call"}, said("4")),
        rollout(user("?"), {**call("add"), "arguments": "[1]"}),
    ],
)
def test_what_has_no_row_and_what_is_odd_is_shown_too(tmp_path, value):
    (tmp_path / "in.jsonl").write_bytes(line(value))
    template = TEMPLATES / "qwen3.jinja"
    assert "in.jsonl:1\n" in show(tmp_path / "in.jsonl", "--rows", "--template", template, "--reward-threshold", 0)


# What a trainer sees.


ROW = {
    "messages": [
        turn("system", "Be brief."),
        turn("user", "2+2?"),
        {**assistant("5"), "weight": 0, "loss_mask": 0},
        turn("user", "Sure?\x1b[31m"),
        {**assistant("4"), "weight": 1, "loss_mask": 1},
    ]
}


def test_what_is_under_loss_is_marked_where_there_is_no_colour(tmp_path):
    (tmp_path / "rows.jsonl").write_bytes(line(ROW))

    told = show(tmp_path / "rows.jsonl", "--template", TEMPLATES / "three_roles.jinja").splitlines()[2:]

    learned = [text.removeprefix("loss │ ") for text in told if text.startswith("loss │")]
    assert told[0] == "a row"
    assert "".join(learned).strip("\n").count("4") == 1
    assert not any("5" in text or "2+2" in text for text in learned)
    assert "     │ Sure?\\x1b[31m" in "\n".join(told) or any("Sure?\\x1b[31m" in text for text in told)
    assert re.fullmatch(r"\d+ of \d+ characters under loss \(\d+%\): the lines marked `loss`; .*", told[1])


def test_without_marks_every_assistant_turn_is_under_loss(tmp_path):
    unmarked = {"messages": [{"role": one["role"], "content": one["content"]} for one in ROW["messages"]]}
    (tmp_path / "rows.jsonl").write_bytes(line(unmarked))
    (tmp_path / "qwen.jinja").write_text(
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    )

    told = show(tmp_path / "rows.jsonl", "--template", tmp_path / "qwen.jinja")

    assert told.splitlines()[2:] == [
        "a row",
        "68 of 177 characters under loss (38%): the lines marked `loss`; where that changes within a line, it is cut",
        "",
        "     │ <|im_start|>system",
        "     │ Be brief.<|im_end|>",
        "     │ <|im_start|>user",
        "     │ 2+2?<|im_end|>",
        "loss │ <|im_start|>assistant",
        "loss │ 5<|im_end|>",
        "     │ <|im_start|>user",
        "     │ Sure?\\x1b[31m<|im_end|>",
        "loss │ <|im_start|>assistant",
        "loss │ 4<|im_end|>",
    ]


def in_a_terminal(*words: object, **environment: str) -> str:
    """What a command draws on a terminal of 80 columns."""
    parent, child = pty.openpty()
    command = [sys.executable, "-m", "fastsft", *map(str, words)]
    kept = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "COLUMNS")}
    process = subprocess.Popen(command, stdout=child, stderr=child, env={**kept, "TERM": "xterm", **environment})
    os.close(child)
    pieces = []
    while True:
        try:
            piece = os.read(parent, 4096)
        except OSError:
            break
        if not piece:
            break
        pieces.append(piece)
    os.close(parent)
    assert process.wait(60) == 0
    return b"".join(pieces).decode().replace("\r\n", "\n")


@pytest.mark.parametrize(
    ("environment", "is_coloured"),
    [({}, True), ({"NO_COLOR": ""}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)],
)
def test_a_terminal_shows_what_is_under_loss_in_another_colour(tmp_path, environment, is_coloured):
    (tmp_path / "rows.jsonl").write_bytes(line({"messages": [turn("user", "2+2?\x1b[31m"), assistant("4")]}))
    (tmp_path / "a.jinja").write_text("{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}")

    told = in_a_terminal("show", tmp_path / "rows.jsonl", "--template", tmp_path / "a.jinja", **environment)

    coloured = (
        "13 of 29 characters under loss (45%): \x1b[1;32munder loss\x1b[0m, \x1b[2mnot\x1b[0m\n\n"
        "\x1b[2muser: 2+2?\\x1b[31m\n\x1b[0m\x1b[1;32massistant: 4\n\x1b[0m"
    )
    assert (coloured in told) == is_coloured
    assert ("\x1b[" in told) == is_coloured


def test_tokens_are_counted_where_there_is_a_tokenizer_and_end_as_nemo_rl_ends_them(tmp_path):
    from tokenizers import Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    (tmp_path / "model").mkdir()
    tokenizer.save(str(tmp_path / "model/tokenizer.json"))
    config = {
        "chat_template": "{% for m in messages %} {{ m.content }}{% endfor %}",
        "bos_token": "<s>",
        "eos_token": " </s>",
    }
    (tmp_path / "model/tokenizer_config.json").write_text(json.dumps(config))
    (tmp_path / "rows.jsonl").write_bytes(line({"messages": [turn("user", "What is 2+2?"), assistant("It is 4")]}))

    told = show(tmp_path / "rows.jsonl", "--template", tmp_path / "model")

    assert told.splitlines()[3:] == [
        "4 of 8 tokens under loss (50%): the lines marked `loss`; where that changes within a line, it is cut",
        "",
        "     │ <s> What is 2+2?",
        "loss │  It is 4 </s>",
    ]


@pytest.mark.parametrize(
    ("template", "problem"),
    [
        ("{{ raise_exception('no \x1b[31m') }}", "the template raises TemplateError: no \\x1b[31m"),
        (
            "{% for a in range(9**5) %}{% for b in range(9**5) %}{% endfor %}{% endfor %}",
            "the template takes more than 1 s (--render-seconds)",
        ),
    ],
)
def test_a_template_that_stops_is_told(tmp_path, template, problem):
    (tmp_path / "in.jsonl").write_bytes(lines(good(), good("5")))
    (tmp_path / "a.jinja").write_text(template)
    told = show(tmp_path / "in.jsonl", "--template", tmp_path / "a.jinja", "--render-seconds", 1)
    assert [text.splitlines()[3] for text in re.split("─{72}\n", told)[1:] for text in ["\n" + text]] == [problem] * 2


def test_a_template_that_is_none_is_an_error_before_anything_is_shown(tmp_path):
    (tmp_path / "in.jsonl").write_bytes(line(good()))
    assert "cannot read the template" in show(tmp_path / "in.jsonl", "--template", tmp_path / "no.jinja", code=2)
