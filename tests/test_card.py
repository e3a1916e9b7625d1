"""The dataset card beside shards: what it says, that `datasets` reads it, and whose README.md it may replace."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from builders import Json, lines, rollout, said, user

import fastsft
from fastsft import FailedRun, UsageError
from fastsft.outputs import outputs as outputs_module
from fastsft.outputs import publication


def solved(number: int, reward: float = 1.0) -> Json:
    return rollout(user(f"{number}?"), said(f"{number}!"), reward=reward)


@pytest.fixture
def rollouts(tmp_path: Path) -> Path:
    (tmp_path / "in.jsonl").write_bytes(lines(*map(solved, range(60)), solved(60, 0.0)) + b"{\n")
    return tmp_path / "in.jsonl"


def parts_of(card: Path) -> tuple[Any, str]:
    _, front, text = card.read_text().split("---\n", 2)
    return yaml.safe_load(front), text


def test_a_card_names_the_files_of_each_split_and_counts_the_lines(rollouts, tmp_path):
    out = tmp_path / "sft"
    splits = {f"{out}/val/": 0.2, f"{out}/a test.jsonl": 0.2, str(tmp_path / "away.jsonl"): 0.1}
    report = fastsft.convert(rollouts, f"{out}/", splits=splits, shards=2, card=True, where="reward < 9 OR '```' = ''")

    front, text = parts_of(out / "README.md")
    rows = {split.name: split.rows for split in report.splits}
    assert front == {
        "configs": [
            {
                "config_name": "default",
                "data_files": [
                    {"split": "train", "path": "train-*-of-00002.jsonl"},
                    {"split": "validation", "path": "val/val-*-of-00002.jsonl"},
                    {"split": "a_test", "path": "a test.jsonl"},
                ],
            }
        ],
        "size_categories": ["n<1K"],
        "task_categories": ["text-generation"],
        "tags": ["nemo-gym", "sft", "fastsft"],
    }
    assert f"| validation | {rows['val']} |" in text
    assert f"| away | {rows['../away.jsonl']} |" in text
    assert "60 rows in the layout `openai`" in text
    assert "| dropped | `below_threshold` | 1 |\n| refused | `bad_json` | 1 |" in text
    settings = json.loads(text.partition("```json\n")[2].partition("\n```")[0])
    assert set(settings) == {"where", "shards", "splits"}
    assert settings["where"] == "reward < 9 OR '```' = ''"
    assert str(tmp_path) not in text


@pytest.mark.parametrize("compress", [None, "gz"])
def test_datasets_reads_the_splits_that_a_card_names(rollouts, tmp_path, compress, monkeypatch):
    datasets = pytest.importorskip("datasets")
    out = tmp_path / "sft"
    report = fastsft.convert(rollouts, f"{out}/", splits={f"{out}/val/": 0.3}, shards=2, card=True, compress=compress)
    fastsft.write_report(out)

    loaded = datasets.load_dataset(str(out), cache_dir=str(tmp_path / "cache"))

    assert {name: rows.num_rows for name, rows in loaded.items()} == dict(
        zip(["train", "validation"], [split.rows for split in report.splits], strict=True)
    )
    assert loaded["train"].column_names == ["messages"]


def test_the_same_run_gives_the_same_card_and_the_report_names_it(rollouts, tmp_path):
    first = fastsft.convert(rollouts, f"{tmp_path}/one/", card=True)
    fastsft.convert(rollouts, f"{tmp_path}/two/", card=True, jobs=2)

    card = (tmp_path / "one/README.md").read_bytes()
    assert (tmp_path / "two/README.md").read_bytes() == card
    said_of_it = json.loads((tmp_path / "one/train.report.json").read_bytes())["card"]
    assert said_of_it == {"name": "README.md", "nbytes": len(card), "sha256": hashlib.sha256(card).hexdigest()}
    assert first.card is not None
    assert fastsft.verify(tmp_path / "one").differences == []


def test_the_next_run_replaces_the_card_or_removes_it(rollouts, tmp_path):
    out = tmp_path / "sft"
    fastsft.convert(rollouts, f"{out}/", card=True)
    before = (out / "README.md").read_bytes()

    fastsft.convert(rollouts, f"{out}/", card=True, reward_threshold=0.0)
    assert (out / "README.md").read_bytes() != before
    fastsft.convert(rollouts, f"{out}/")

    assert not (out / "README.md").exists()
    assert "card" not in json.loads((out / "train.report.json").read_bytes())


@pytest.mark.parametrize("kind", ["file", "edited", "link", "folder", "of another name"])
def test_a_readme_that_is_not_ours_is_never_overwritten(rollouts, tmp_path, kind, monkeypatch):
    out = tmp_path / "sft"
    out.mkdir()
    readme = out / "README.md"
    if kind == "file":
        readme.write_text("mine")
    elif kind == "edited":
        fastsft.convert(rollouts, out, card=True)
        readme.write_text(readme.read_text().replace("licence", "license"))
    elif kind == "link":
        readme.symlink_to(tmp_path / "nowhere")
    elif kind == "folder":
        readme.mkdir()
    else:
        fastsft.convert(rollouts, out, card=True, name="other")
    before = {path: path.lstat().st_mtime_ns for path in out.iterdir()}

    with pytest.raises(UsageError, match=r"README\.md is there, and not as an earlier run wrote it"):
        fastsft.convert(rollouts, out, card=True)
    assert {path: path.lstat().st_mtime_ns for path in out.iterdir()} == before

    fastsft.convert(rollouts, out)
    assert readme.lstat().st_mtime_ns == before[readme]


def test_a_readme_that_appears_during_the_run_stops_it_before_anything_is_published(rollouts, tmp_path, monkeypatch):
    out = tmp_path / "sft"
    assemble = outputs_module.Outputs.assemble

    def meanwhile(*arguments: Any) -> Any:
        (out / "README.md").write_text("mine")
        return assemble(*arguments)

    monkeypatch.setattr(outputs_module.Outputs, "assemble", meanwhile)
    with pytest.raises(FailedRun, match="leave out --card; nothing was published"):
        fastsft.convert(rollouts, f"{out}/", card=True)

    assert (out / "README.md").read_text() == "mine"
    assert sorted(path.name for path in out.iterdir() if not path.name.startswith(".")) == ["README.md"]
    monkeypatch.undo()
    (out / "README.md").unlink()
    assert fastsft.convert(rollouts, f"{out}/", card=True).rows == 60


def test_a_card_that_could_not_get_its_name_is_published_with_the_rest_later(rollouts, tmp_path, monkeypatch):
    out = tmp_path / "sft"
    rename = publication.rename

    def full(source: Path, target: Path) -> None:
        if target.name == "README.md":
            raise OSError(28, "No space left on device")
        rename(source, target)

    monkeypatch.setattr(publication, "rename", full)
    with pytest.raises(FailedRun, match="publishing was not finished"):
        fastsft.convert(rollouts, f"{out}/", card=True)
    assert not (out / "train.report.json").exists()
    monkeypatch.undo()

    assert fastsft.verify(out).differences == []
    card = json.loads((out / "train.report.json").read_bytes())["card"]
    assert hashlib.sha256((out / "README.md").read_bytes()).hexdigest() == card["sha256"]


def test_a_card_is_for_shards(rollouts, tmp_path):
    with pytest.raises(UsageError, match=r"a card lies beside shards in a folder; write the output as .*train\.jsonl/"):
        fastsft.convert(rollouts, tmp_path / "train.jsonl", card=True)


def test_names_of_splits_are_told_apart_and_globs_in_them_are_names(rollouts, tmp_path):
    out = tmp_path / "sft"
    splits = {f"{out}/val/": 0.2, f"{out}/dev.jsonl": 0.2, f"{out}/te[s]t|`.jsonl": 0.2}
    fastsft.convert(rollouts, f"{out}/", splits=splits, card=True)

    front, text = parts_of(out / "README.md")

    assert front["configs"][0]["data_files"][1:] == [
        {"split": "validation", "path": "val/val-*-of-00001.jsonl"},
        {"split": "validation_", "path": "dev.jsonl"},
        {"split": "te_s_t_", "path": "te[[]s]t|`.jsonl"},
    ]
    assert "| te[s]t&#124;&#96; |" in text


def test_an_empty_split_is_no_file_of_the_card(rollouts, tmp_path):
    fastsft.convert(rollouts, f"{tmp_path}/sft/", card=True, reward_threshold=5.0, allow_empty=True)

    front, _ = parts_of(tmp_path / "sft/README.md")

    assert front["configs"] == [{"config_name": "default", "data_files": []}]


def test_of_a_template_a_card_names_no_folder(rollouts, tmp_path, tokenizer):
    fastsft.convert(rollouts, f"{tmp_path}/sft/", card=True, max_tokens=100, template=tokenizer)

    _, text = parts_of(tmp_path / "sft/README.md")

    assert json.loads(text.partition("```json\n")[2].partition("\n```")[0])["template"] == tokenizer.name
    assert str(tmp_path) not in text
