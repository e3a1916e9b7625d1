"""The page of an output: what it shows of a run, that all of it is text, and what it says is missing.

What a browser makes of it is in `tests/browser.py`.
"""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from builders import line, lines, rollout, said, turn, user
from hypothesis import given, settings
from hypothesis import strategies as st

import fastsft
from fastsft import FailedRun, UsageError
from fastsft.pipeline.sampled_rows import ShownRow
from fastsft.views.html.conversations import conversation_of
from fastsft.views.html.flow import flow_of

MARKUP = "</pre></details><script>alert(1)</script><img src=x onerror=alert(2)>"
VOID = {"meta"}


class Page(HTMLParser):
    """A page as a tree-less reader sees it: elements with their attributes, and the text of each section."""

    def __init__(self, data: bytes) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, Any]]] = []
        self.open: list[str] = []
        self.texts: dict[str, list[str]] = {"": []}
        self.section = ""
        self.cells: list[str] = []
        self.feed(data.decode())
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, Any]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag == "section" and dict(attrs).get("id"):
            self.section = dict(attrs)["id"]
            self.texts[self.section] = []
        if tag in ("td", "th"):
            self.cells.append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, Any]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if {"td", "th"} & set(self.open):
            self.cells[-1] += data
        if not {"style", "script"} & set(self.open):
            self.texts[self.section].append(data)

    def text(self, section: str) -> str:
        return " ".join(" ".join(self.texts[section]).split())


def shown(output: Path, **options: Any) -> Page:
    page = Page(fastsft.write_report(output, **options).read_bytes())
    assert page.open == []
    return page


def rows_of(page: Page, name: str, width: int) -> list[list[str]]:
    """The rows of tables that begin with a name."""
    return [page.cells[at : at + width] for at, cell in enumerate(page.cells) if cell == name]


def solved(question: str, answer: str, *, reward: float = 1.0, agent: str = "math", **more: Any) -> dict[str, Any]:
    return {**rollout(user(question), said(answer), reward=reward), "agent_ref": {"name": agent}, **more}


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """Six lines: of two tasks of `math`, one solved at times, and one of `code`; one refused, one blank."""
    told = [
        solved("2+2?", "4"),
        solved("2+2?", "5", reward=0.0),
        solved("3+3?", "6"),
        solved("sort", "sorted()", agent="code", reward=0.5),
    ]
    (tmp_path / "in.jsonl").write_bytes(lines(*told) + b"{torn\n\n")
    fastsft.convert(tmp_path / "in.jsonl", tmp_path / "out/train.jsonl", format="chat")
    return tmp_path / "out/train.jsonl"


def test_a_page_shows_fates_rates_lengths_findings_rows_and_files(output):
    page = shown(output)

    assert list(page.texts) == ["", "fates", "success", "lengths", "check", "rows", "files", "run"]
    assert "2 rows in the layout chat, from 6 lines of 1 input file" in page.text("")
    assert (
        "lines 6 kept 2 · 33.3% dropped 2 · 33.3% refused 1 · 16.7% blank 1 · 16.7% "
        "below_threshold 2 · 33.3% bad_json 1 · 16.7%"
    ) in page.text("fates")
    assert "Counted from the inputs: 4 rollouts." in page.text("success")
    assert rows_of(page, "math", 8) == [["math", "3", "0.667", "66.7%", "2", "0", "1", "1"]]
    assert rows_of(page, "code", 8) == [["code", "1", "0.500", "0.0%", "1", "1", "0", "0"]]
    assert "All rows were checked: 2. Nothing was found" in page.text("check")
    assert "2 example rows" in page.text("rows")
    assert "train.jsonl:1 2 turns 2+2? user 2+2? assistant 4" in page.text("rows")
    assert "bad_json" in page.text("rows")
    assert (output.parent / "train.report.html").exists()


def test_a_page_is_the_same_bytes_each_time_and_holds_nothing_from_elsewhere(output, tmp_path):
    first = fastsft.write_report(output).read_bytes()
    again = fastsft.write_report(output, tmp_path / "again.html").read_bytes()
    page = Page(first)

    assert first == again
    assert {name for name, _ in page.elements} & {"link", "img", "iframe", "object", "embed", "base", "form"} == set()
    named = {key for _, attributes in page.elements for key in attributes}
    assert named & {"src", "style", "srcset", "action"} == set()
    assert {kind["href"][0] for _, kind in page.elements if "href" in kind} == {"#"}
    assert "url(" not in first.decode()
    (policy,) = [kind["content"] for _, kind in page.elements if kind.get("http-equiv") == "Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policy


def test_markup_is_text_wherever_it_stands(tmp_path):
    call = {"type": "function_call", "name": MARKUP, "arguments": json.dumps({MARKUP: MARKUP}), "call_id": "c"}
    result = {"type": "function_call_output", "call_id": "c", "output": MARKUP}
    thought = {"type": "reasoning", "summary": [{"type": "summary_text", "text": MARKUP}]}
    tool = {"type": "function", "name": MARKUP, "description": MARKUP, "parameters": {"type": "object"}}
    told = {
        **rollout(user(MARKUP), thought, call, result, said(MARKUP + "\x00\u202e"), tools=[tool]),
        "agent_ref": {"name": MARKUP},
    }
    name = "<script>alert(3)<\\script>"
    (tmp_path / name).mkdir()
    (tmp_path / name / "<b>.jsonl").write_bytes(lines(told) + b"<script>alert(4)</script>\n")
    fastsft.convert(tmp_path / name, tmp_path / "out/<i>.jsonl", format="chat")

    page = shown(tmp_path / "out/<i>.jsonl")

    assert [name for name, _ in page.elements].count("script") == 1
    assert {name for name, _ in page.elements} & {"img", "b", "i"} == set()
    assert {key for _, attributes in page.elements for key in attributes if key.startswith("on")} == set()
    # The question twice, thought, call, argument and its name, result, answer; of the tool its name twice and its text.
    assert page.text("rows").count(MARKUP) == 11
    assert "\\x00\\u202e" in page.text("rows")
    assert MARKUP in page.text("success")
    assert "<b>.jsonl" in page.text("files")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
KEYS = [
    "messages",
    "role",
    "content",
    "tool_calls",
    "function",
    "name",
    "arguments",
    "text",
    "type",
    "reasoning_content",
]
KEYS += ["tools", "input", "output", "prompt", "chosen", "rejected", "completion", "completions", "label", "context"]
ROWS = st.recursive(
    JSON | st.sampled_from(["user", "assistant", "tool", "image_url", "data:image/png;base64,AAAA"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=5),
    max_leaves=20,
)


@settings(max_examples=400, deadline=None)
@given(row=ROWS)
def test_whatever_a_row_is_it_unfolds_and_is_well_formed(row):
    drawn = conversation_of(ShownRow("rows.jsonl", 1, 0, row))

    page = Page(drawn.encode())
    assert page.open == []
    assert page.elements[0] == ("details", {"class": "row"})
    assert {name for name, _ in page.elements} <= set("details summary span div section h4 pre p".split())


def test_large_outputs_are_sampled_and_totals_are_those_of_the_report(output, tmp_path, monkeypatch):
    many = b"".join(line(solved(f"{number}?", "word " * 40)) for number in range(4000))
    (tmp_path / "many.jsonl").write_bytes(many)
    fastsft.convert(tmp_path / "many.jsonl", f"{tmp_path}/sft/", shards=3)
    monkeypatch.setattr("fastsft.pipeline.sampled_rows._NBYTES", 64_000)
    monkeypatch.setattr("fastsft.pipeline.sampled_inputs._NBYTES", 64_000)
    monkeypatch.setattr("fastsft.inputs.excerpts._READ_NBYTES", 1000)

    page = shown(tmp_path / "sft")

    assert "4,000 rows in the layout openai, from 4,000 lines" in page.text("")
    (checked,) = [one for one in page.texts["check"] if "checked:" in one]
    read = int(checked.split()[4].replace(",", ""))
    assert checked == f"A sample was checked: {read:,} of 4,000 rows."
    assert 100 < read < 1000
    assert "Counted from excerpts of the inputs" in page.text("success")
    places = [one for one in page.texts["rows"] if ", byte " in one]
    assert len(places) == 20
    assert {place.partition(",")[0] for place in places} == {f"train-0000{shard}-of-00003.jsonl" for shard in range(3)}
    for place in places:
        name, _, offset = place.partition(", byte ")
        data = (tmp_path / "sft" / name).read_bytes()[int(offset.replace(",", "")) :]
        assert data.startswith(b'{"messages":')
    assert fastsft.write_report(tmp_path / "sft").read_bytes() == fastsft.write_report(tmp_path / "sft").read_bytes()


def test_compressed_rows_and_inputs_are_read(tmp_path):
    (tmp_path / "in.jsonl.gz").write_bytes(gzip.compress(lines(*[solved(f"{number}?", "!") for number in range(30)])))
    fastsft.convert(tmp_path / "in.jsonl.gz", f"{tmp_path}/out/", compress="gz")

    page = shown(tmp_path / "out")

    assert "All rows were checked: 30." in page.text("check")
    assert "Counted from the inputs: 30 rollouts." in page.text("success")
    assert "train-00000-of-00001.jsonl.gz:1 2 turns 0?" in page.text("rows")


def test_an_index_beside_the_inputs_is_counted(output, tmp_path):
    fastsft.index(tmp_path / "in.jsonl", tmp_path, format="chat")

    page = shown(output)

    assert "Counted from an index: 4 rollouts." in page.text("success")
    assert rows_of(page, "math", 8) == [["math", "3", "0.667", "66.7%", "2", "0", "1", "1"]]


def test_a_page_says_what_is_missing(output, tmp_path):
    with (tmp_path / "in.jsonl").open("ab") as file:
        file.write(lines(solved("new", "!")))
    output.write_bytes(output.read_bytes()[:-1])
    (output.parent / "train.refused").write_bytes(b"[]\n")

    page = shown(output)

    assert "The rows in train.jsonl: it is not as the report says" in page.text("")
    assert "1 of 1 inputs cannot be found from here or have changed" in page.text("")
    assert "Refused lines: train.refused cannot be read" in page.text("")
    assert "neither can be read from here" in page.text("success")
    assert "none were checked" in page.text("check")


def test_inputs_of_another_size_are_not_counted_whatever_their_time(output, tmp_path):
    state = os.stat(tmp_path / "in.jsonl")
    (tmp_path / "in.jsonl").write_bytes(lines(solved("new", "!")))
    os.utime(tmp_path / "in.jsonl", ns=(state.st_atime_ns, state.st_mtime_ns))

    assert "cannot be found from here or have changed" in shown(output).text("")


def test_inputs_that_were_touched_since_are_not_counted(output, tmp_path):
    later = os.stat(output.parent / "train.report.json").st_mtime + 10
    os.utime(tmp_path / "in.jsonl", (later, later))

    assert "cannot be found from here or have changed" in shown(output).text("")


def test_duplicates_are_named_by_the_files_of_the_output(tmp_path):
    (tmp_path / "in.jsonl").write_bytes(lines(solved("a", "b"), solved("a", "b")))
    fastsft.convert(tmp_path / "in.jsonl", f"{tmp_path}/out/", compress="gz")

    name = "train-00000-of-00001.jsonl.gz"
    assert f"{name}:2 : as {name}:1" in shown(tmp_path / "out").text("check")


def test_rows_of_splits_are_shown_with_those_of_the_main_output(tmp_path):
    (tmp_path / "in.jsonl").write_bytes(lines(*[solved(f"{number}?", "!") for number in range(40)]))
    report = fastsft.convert(
        tmp_path / "in.jsonl", tmp_path / "sft/train.jsonl", splits={str(tmp_path / "sft/val.jsonl"): 0.5}
    )

    page = shown(tmp_path / "sft/train.jsonl")

    assert "All rows were checked: 40." in page.text("check")
    assert [split.name for split in report.splits] == ["train.jsonl", "val.jsonl"]
    for split in report.splits:
        assert f"{split.name} {split.rows} · " in page.text("fates")
        assert f" {split.name}:" in page.text("rows")


def test_the_main_output_in_a_folder_is_called_by_its_name_among_splits(tmp_path):
    (tmp_path / "in.jsonl").write_bytes(lines(*[solved(f"{number}?", "!") for number in range(40)]))
    report = fastsft.convert(tmp_path / "in.jsonl", f"{tmp_path}/sft/", splits={f"{tmp_path}/sft/val/": 0.5})

    page = shown(tmp_path / "sft")

    counts = [str(split.rows) for split in report.splits]
    assert [row[1] for row in rows_of(page, "train", 2)] == ["train-00000-of-00001.jsonl", counts[0]]
    assert [row[1] for row in rows_of(page, "val", 2)] == ["val-00000-of-00001.jsonl", counts[1]]
    assert "val/val-00000-of-00001.jsonl:" in page.text("rows")


def test_with_a_tokenizer_tokens_of_rows_are_counted(output, tokenizer):
    with_tokens, without = shown(output, template=tokenizer), shown(output)

    assert rows_of(with_tokens, "tokens", 6)[:1] == [["tokens", *["3"] * 5]]  # <s>, 2+2?, 4
    assert "Tokens of rows are counted with --template FOLDER" in without.text("lengths")


def test_of_a_folder_with_a_split_the_main_output_is_shown(tmp_path):
    (tmp_path / "in.jsonl").write_bytes(lines(*[rollout(user(f"{n}?"), said("4")) for n in range(9)]))
    fastsft.convert(tmp_path / "in.jsonl", tmp_path / "out/train.jsonl", splits={tmp_path / "out/a.jsonl": 0.5})

    assert Path(fastsft.write_report(tmp_path / "out")).name == "train.report.html"


@pytest.mark.parametrize(
    ("made", "problem"),
    [
        (lambda out: out / "nothing.jsonl", "nothing to show: there is no report"),
        (lambda out: out / "elsewhere/", "nothing to show: there is no report"),
        (lambda out: "s3://bucket/sft/", "a page is made from files, and s3://bucket/sft/ is in a store"),
        (lambda out: out, "holds 2 outputs; name the report of one"),
    ],
)
def test_where_there_is_no_one_report_the_error_says_so(output, made, problem):
    fastsft.convert(output.parent.parent / "in.jsonl", output.parent / "other.jsonl")

    with pytest.raises(UsageError, match=problem):
        fastsft.write_report(made(output.parent))


def test_the_report_itself_names_its_output(output):
    fastsft.convert(output.parent.parent / "in.jsonl", output.parent / "other.jsonl")

    assert "2 rows" in shown(output.parent / "train.report.json").text("")


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b"\xff", b'{"version": "1", "options": []}'])
def test_a_damaged_report_is_a_clear_failure(output, damage):
    (output.parent / "train.report.json").write_bytes(damage)

    with pytest.raises(FailedRun, match=r"train\.report\.json cannot be read as a report"):
        fastsft.write_report(output)


@pytest.mark.parametrize("name", ["notes.html", "train.report.html"])
def test_a_file_that_is_no_page_of_ours_is_never_overwritten(output, name):
    path = output.parent / name
    path.write_text("mine")

    with pytest.raises(UsageError, match="is there and no page of fastsft's"):
        fastsft.write_report(output, path)

    assert path.read_text() == "mine"


def test_a_page_of_ours_is_written_again(output):
    path = fastsft.write_report(output)
    before = path.read_bytes()
    path.write_bytes(before[:2000])

    assert fastsft.write_report(output).read_bytes() == before


@pytest.mark.parametrize(
    ("name", "problem"), [("page.pdf.json", "promises another kind of file"), ("", "is a folder; name a file in it")]
)
def test_a_page_goes_to_a_file_that_may_be_one(output, name, problem):
    with pytest.raises(UsageError, match=problem):
        fastsft.write_report(output, output.parent / name)


def test_the_command_writes_the_page_and_opens_it(output, tmp_path):
    browser = tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\necho "$1" > {tmp_path}/opened\n')
    browser.chmod(0o755)
    words = [sys.executable, "-m", "fastsft", "report", str(output), "-o", str(tmp_path / "a b.html"), "--open"]

    done = subprocess.run(
        words, capture_output=True, text=True, env={**os.environ, "BROWSER": str(browser)}, timeout=60
    )

    assert (done.returncode, done.stdout, done.stderr) == (0, f"Wrote {tmp_path}/a b.html\n", "")
    assert (tmp_path / "opened").read_text() == f"file://{tmp_path}/a%20b.html\n"


def test_lengths_are_drawn_by_powers_of_two_and_the_threshold_is_marked(output, tmp_path):
    page = shown(output)

    assert "2 to 3: 4" in page.text("lengths")  # turns of the four rollouts
    assert "threshold 0.95" in page.text("success")


def test_rollouts_of_no_agent_are_a_row_of_their_own(tmp_path):
    (tmp_path / "in.jsonl").write_bytes(lines(rollout(user("2+2?"), said("4"))))
    fastsft.convert(tmp_path / "in.jsonl", tmp_path / "train.jsonl")

    page = shown(tmp_path / "train.jsonl")

    assert rows_of(page, "(no agent_ref)", 8) == [["(no agent_ref)", "1", "1.000", "100.0%", "1", "0", "0", "1"]]


def test_of_an_index_only_the_files_of_the_run_count(output, tmp_path):
    (tmp_path / "more.jsonl").write_bytes(lines(solved("7+7?", "14", agent="other")))
    fastsft.index([tmp_path / "more.jsonl", tmp_path / "in.jsonl"], tmp_path, format="chat")

    page = shown(output)

    assert "Counted from an index: 4 rollouts." in page.text("success")
    assert rows_of(page, "other", 8) == []


def test_many_reasons_are_a_few_and_the_others_together():
    dropped = {f"reason_{number:02}": 100 - number for number in range(12)}
    report = fastsft.Report(version="1", options={}, fates=fastsft.Fates(lines=sum(dropped.values()), dropped=dropped))

    page = Page(flow_of(report).encode())

    assert page.text("").count("reason_") == 2 * 7  # wide and narrow
    assert page.text("").count(f"5 other reasons {sum(100 - number for number in range(7, 12))} ·") == 2


def test_pairs_of_a_question_and_an_answer_are_shown_by_their_columns():
    def told(row: Any) -> str:
        return Page(conversation_of(ShownRow("rows.jsonl", 1, 0, row)).encode()).text("")

    assert told({"input": "2+2?", "output": "4"}) == "rows.jsonl:1 2 turns 2+2? input 2+2? output 4"
    assert told({"prompt": "2+2?", "completion": "4"}) == "rows.jsonl:1 2 turns 2+2? prompt 2+2? completion 4"
    several = told({"prompt": [turn("user", "2+2?")], "completion": [turn("assistant", "4")]})
    assert several.endswith("prompt user 2+2? completion assistant 4")


def test_sides_of_a_preference_are_shown_by_their_names():
    asked, yes, no = turn("user", "2+2?"), turn("assistant", "4"), turn("assistant", "5")
    pair = {"prompt": [asked], "chosen": [yes], "rejected": [no]}
    kto = {"prompt": [asked], "completion": [no], "label": False}

    def told(row: Any) -> str:
        return Page(conversation_of(ShownRow("pairs.jsonl", 1, 0, row)).encode()).text("")

    assert told(pair) == "pairs.jsonl:1 preference, trl 2+2? user 2+2? chosen assistant 4 rejected assistant 5"
    assert told(kto) == "pairs.jsonl:1 preference, kto 2+2? user 2+2? completion, bad assistant 5"


def test_long_texts_and_long_conversations_are_cut_and_it_is_said(tmp_path):
    messages = [turn("user", "x" * 7000), *(turn("assistant", str(number)) for number in range(70))]

    page = Page(conversation_of(ShownRow("rows.jsonl", 1, 0, {"messages": messages})).encode())

    assert "… 1,000 more characters" in page.text("")
    assert "… 11 more turns" in page.text("")


def test_an_output_that_is_half_published_is_to_be_finished_first(output):
    staging = output.parent / ".train.fastsft"
    staging.mkdir()
    (staging / "publish.json").write_text('{"renames":[],"away":[],"reports":[]}')

    with pytest.raises(UsageError, match=r"is half published; `fastsft verify .*` finishes it"):
        fastsft.write_report(output)
