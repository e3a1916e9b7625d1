"""The config for NeMo RL: each way in which the guide's own fails or trains on something else is impossible."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from builders import assistant, lines, rollout, said, turn, user

import fastsft
from fastsft.configs.nemo_rl import write_config
from fastsft.configs.nemo_rl_config import batches_of
from fastsft.configs.training import Training
from fastsft.errors import UsageError

# What `examples/configs/sft.yaml` of NeMo RL (main, August 2026) has where it matters here.
BASE = {
    "sft": {"max_num_epochs": 1, "max_num_steps": 60, "val_period": 10, "val_batches": 8, "val_at_start": True},
    "checkpointing": {
        "enabled": True,
        "checkpoint_dir": "results/sft",
        "metric_name": "val:val_loss",
        "save_period": 10,
    },
    "policy": {
        "model_name": "meta-llama/Llama-3.2-1B",
        "tokenizer": {
            "name": "${policy.model_name}",
            "chat_template": "{% three roles %}",
            "chat_template_kwargs": None,
        },
        "train_global_batch_size": 32,
        "max_total_sequence_length": 1024,
        "precision": "bfloat16",
    },
    "data": {
        "max_input_seq_length": "${policy.max_total_sequence_length}",
        "add_bos": True,
        "train": {"dataset_name": "squad", "split": "train"},
        "validation": {"dataset_name": "squad", "split": "validation"},
        "default": {"prompt_file": None, "system_prompt_file": None, "processor": "sft_processor"},
    },
    "logger": {
        "log_dir": "logs",
        "wandb_enabled": True,
        "wandb": {"project": "sft-dev", "name": "sft-dev-${data.train.dataset_name}"},
        "swanlab": {"project": "sft-dev", "name": "sft-dev-${data.train.dataset_name}"},
        "tensorboard": {"log_dir": "tb_logs-sft-dev-${data.train.dataset_name}"},
        "mlflow": {"experiment_name": "sft-dev", "run_name": "sft-dev-${data.train.dataset_name}"},
    },
    "cluster": {"gpus_per_node": 1, "num_nodes": 1},
}


def loaded(path: Path) -> dict[str, Any]:
    """A config as NeMo RL's loader gives it: `defaults` beside the file, `_override_` for whole blocks on top."""
    config = yaml.safe_load(path.read_text())
    base = config.pop("defaults", None)
    if base is None:
        return config
    merged = loaded(Path(base) if base.startswith("/") else path.parent / base)
    for name, value in config.items():
        if isinstance(value, dict) and value.pop("_override_", False):
            merged[name] = value
        else:
            merged[name] = joined(merged.get(name), value)
    return merged


def joined(base: Any, value: Any) -> Any:
    if isinstance(base, dict) and isinstance(value, dict):
        return {**base, **{name: joined(base.get(name), inner) for name, inner in value.items()}}
    assert not (isinstance(base, dict) and isinstance(value, list)), "a list cannot merge over a mapping"
    return value


def everything_in(config: Any) -> list[Any]:
    if isinstance(config, dict):
        return [one for name, value in config.items() for one in [name, *everything_in(value)]]
    return [one for value in config for one in everything_in(value)] if isinstance(config, list) else [config]


@pytest.fixture
def checkout(tmp_path):
    """A checkout of NeMo RL, as far as it matters here."""
    base = tmp_path / "NeMo-RL/examples/configs/sft.yaml"
    base.parent.mkdir(parents=True)
    base.write_text(yaml.safe_dump(BASE))
    return tmp_path / "NeMo-RL"


@pytest.fixture
def rows(tmp_path):
    """Rows to learn from and rows to validate with, in two folders, by their paths."""
    (tmp_path / "in.jsonl").write_bytes(lines(*[rollout(user(f"{n}?"), said(f"{n}!")) for n in range(300)]))
    fastsft.convert(tmp_path / "in.jsonl", tmp_path / "sft/train.jsonl", splits={str(tmp_path / "sft/val.jsonl"): 0.2})
    return tmp_path / "sft/train.jsonl", tmp_path / "sft/val.jsonl"


def test_conversations_and_the_model_s_own_template(rows, checkout, tmp_path):
    train, val = rows

    write_config([train], [val], tmp_path / "sft.yaml", Training(), checkout=checkout)

    config = loaded(tmp_path / "sft.yaml")
    block = {
        "dataset_name": "openai_format",
        "chat_key": "messages",
        "tool_key": "tools",
        "system_key": None,
        "system_prompt": None,
        "use_preserving_dataset": True,
    }
    assert config["data"] == {
        "max_input_seq_length": "${policy.max_total_sequence_length}",
        "add_bos": True,
        "add_eos": True,
        "add_generation_prompt": False,
        "shuffle": True,
        "num_workers": 1,
        "train": {"data_path": str(train), **block},
        "validation": {"data_path": str(val), **block},
        "default": {"prompt_file": None, "system_prompt_file": None, "processor": "sft_processor"},
    }
    assert config["policy"] == {
        "model_name": "Qwen/Qwen2.5-1.5B",
        "tokenizer": {"name": "${policy.model_name}", "chat_template": "default", "chat_template_kwargs": None},
        "train_global_batch_size": 128,
        "train_micro_batch_size": 4,
        "max_total_sequence_length": 1024,
        "precision": "bfloat16",
    }
    assert config["checkpointing"] == {
        "enabled": True,
        "checkpoint_dir": "results/gym_sft",
        "metric_name": "val:val_loss",
        "higher_is_better": False,
        "save_period": 100,
    }
    assert {name: config["sft"][name] for name in ("max_num_epochs", "val_period", "val_at_start")} == {
        "max_num_epochs": 3,
        "val_period": 100,
        "val_at_start": True,
    }
    assert config["sft"]["max_num_steps"] > 3 * 240


def test_nothing_of_the_base_names_other_data_or_one_dataset(rows, checkout, tmp_path):
    write_config([rows[0]], [rows[1]], tmp_path / "sft.yaml", Training(), checkout=checkout)

    words = [str(word) for word in everything_in(loaded(tmp_path / "sft.yaml"))]
    assert not [word for word in words if "squad" in word or "data.train.dataset_name" in word or word == "split"]


def test_each_shard_has_a_block(rows, checkout, tmp_path):
    fastsft.convert(tmp_path / "in.jsonl", f"{tmp_path}/shards/", shards=3)

    write_config([tmp_path / "shards"], [], tmp_path / "sft.yaml", Training(), checkout=checkout)

    data = loaded(tmp_path / "sft.yaml")["data"]
    assert [block["data_path"] for block in data["train"]] == [
        str(tmp_path / f"shards/train-0000{index}-of-00003.jsonl") for index in range(3)
    ]
    assert data["validation"] is None


def test_without_validation_nothing_is_measured_on_it(rows, checkout, tmp_path):
    write_config([rows[0]], [], tmp_path / "sft.yaml", Training(), checkout=checkout)

    config = loaded(tmp_path / "sft.yaml")
    assert config["data"]["validation"] is None
    assert (config["sft"]["val_period"], config["sft"]["val_at_start"], config["sft"]["val_at_end"]) == (
        0,
        False,
        False,
    )
    assert config["checkpointing"]["metric_name"] is None


def test_pairs_are_told_by_looking_at_the_rows(rows, checkout, tmp_path):
    fastsft.convert(tmp_path / "in.jsonl", tmp_path / "pairs.jsonl", format="simple")

    write_config([tmp_path / "pairs.jsonl"], [], tmp_path / "sft.yaml", Training(), checkout=checkout)

    assert loaded(tmp_path / "sft.yaml")["data"]["train"] == {
        "data_path": str(tmp_path / "pairs.jsonl"),
        "dataset_name": "ResponseDataset",
        "input_key": "input",
        "output_key": "output",
    }


def test_without_a_checkout_it_is_said_where_the_file_goes(rows, checkout, tmp_path):
    written = write_config([rows[0]], [], tmp_path / "sft.yaml", Training())

    assert (
        written.remarks[-1] == "Put sft.yaml into the folder examples/ of NeMo RL, where configs/sft.yaml is beside it."
    )
    (checkout / "examples/sft.yaml").write_bytes((tmp_path / "sft.yaml").read_bytes())
    assert loaded(checkout / "examples/sft.yaml")["policy"]["precision"] == "bfloat16"


def test_the_sequence_is_as_long_as_nearly_all_rows(tmp_path):
    values = [
        {"messages": [turn("user", "?"), assistant("x" * size)]} for size in [*[100] * 197, 20_000, 20_000, 90_000]
    ]
    (tmp_path / "rows.jsonl").write_bytes(lines(*values))

    written = write_config([tmp_path / "rows.jsonl"], [], tmp_path / "sft.yaml", Training())

    assert written.config["policy"]["max_total_sequence_length"] == 8192  # 20,000 bytes and a few, a third of that
    longest = -(-max(map(len, (tmp_path / "rows.jsonl").read_bytes().splitlines())) // 3)
    assert f"the longest {longest:,}, at 3 bytes a token" in " ".join(written.remarks)
    assert "convert --max-tokens" in " ".join(written.remarks)


def test_fewer_rows_than_a_batch_make_a_smaller_batch(tmp_path):
    values = [{"messages": [turn("user", f"{n}?"), assistant("!")]} for n in range(9)]
    (tmp_path / "rows.jsonl").write_bytes(lines(*values))

    written = write_config([tmp_path / "rows.jsonl"], [], tmp_path / "sft.yaml", Training())

    assert written.config["policy"]["train_global_batch_size"] == 8
    with pytest.raises(UsageError, match="a batch of 32 rows is more than there are"):
        write_config([tmp_path / "rows.jsonl"], [], tmp_path / "sft.yaml", Training(global_batch=32))


def test_rows_that_may_not_train_well_are_told(tmp_path):
    (tmp_path / "rows.jsonl").write_bytes(lines({"messages": [turn("user", "?"), assistant("")]}))

    written = write_config([tmp_path / "rows.jsonl"], [], tmp_path / "sft.yaml", Training())

    assert written.remarks[0].startswith("These rows may not train well (empty_turn 1);")


@pytest.mark.parametrize(
    ("second", "kind"),
    [
        ({"messages": [turn("user", "?"), assistant("!"), turn("user", "?")]}, "last_role"),
        ({"messages": []}, "not_a_row"),
        ({"input": "?", "output": "!"}, "mixed_rows"),
    ],
)
def test_rows_at_which_the_load_stops_are_refused_to_train_on_and_to_validate_with(rows, tmp_path, second, kind):
    bad = tmp_path / "bad.jsonl"
    bad.write_bytes(lines({"messages": [turn("user", "?"), assistant("!")]}, second))

    for train, val in (([bad], []), ([rows[0]], [bad])):
        with pytest.raises(UsageError, match=f"NeMo RL would stop at these rows: {kind} .*bad.jsonl:2"):
            write_config(train, val, tmp_path / "sft.yaml", Training())


@pytest.mark.parametrize(
    ("asked", "count", "expected"),
    [
        ({}, 240, (128, 4)),
        ({"gpus": 8, "nodes": 2}, 240, (128, 4)),
        ({"gpus": 8, "nodes": 8}, 240, (128, 2)),
        ({"gpus": 3}, 240, (96, 4)),
        ({"gpus": 8}, 9, (8, 1)),
        ({"global_batch": 2}, 240, (2, 2)),
        ({"global_batch": 12, "gpus": 3, "micro_batch": 2}, 240, (12, 2)),
        ({"gpus": 8}, 5, "8 GPUs take a batch of 8 rows at least"),
        ({"global_batch": 10, "gpus": 4}, 240, "does not divide over 4 GPUs"),
        ({"global_batch": 10, "micro_batch": 4}, 240, "do not divide by the micro batch of 4"),
    ],
)
def test_batches_divide_over_all_gpus(asked, count, expected):
    training = Training(**asked)
    if isinstance(expected, str):
        with pytest.raises(UsageError, match=expected):
            batches_of(training, count, gpus=training.gpus, nodes=training.nodes)
    else:
        assert batches_of(training, count, gpus=training.gpus, nodes=training.nodes) == expected


def test_a_folder_with_rows_that_were_set_aside_is_refused(rows, tmp_path):
    with pytest.raises(UsageError, match=r"val.jsonl is a split that was set aside; name the files to train on"):
        write_config([tmp_path / "sft"], [], tmp_path / "sft.yaml", Training())


def test_what_a_number_may_be_taken_for_is_quoted(rows, tmp_path):
    write_config([rows[0]], [], tmp_path / "sft.yaml", Training(run="1e5"))

    assert 'name: "1e5"' in (tmp_path / "sft.yaml").read_text()


def test_paths_mean_what_they_mean_elsewhere(rows, checkout, tmp_path, monkeypatch):
    odd = tmp_path / "b[1]"
    odd.mkdir()
    (odd / "train.jsonl").write_bytes(rows[0].read_bytes())
    monkeypatch.chdir(odd)

    write_config(["t*.jsonl"], [], "sft.yaml", Training(), checkout=checkout)
    assert loaded(odd / "sft.yaml")["data"]["train"]["data_path"] == str(odd / "train.jsonl")
    for wrong in ("", "train.jsonl/"):
        with pytest.raises(UsageError, match="cannot read"):
            write_config([wrong], [], "other.yaml", Training(), checkout=checkout)
    assert not (odd / "other.yaml").exists()


def test_wrong_words_are_told_and_nothing_is_written(rows, checkout, tmp_path):
    train, val = rows
    hidden = tmp_path / ".hidden/train.jsonl"
    hidden.parent.mkdir()
    hidden.write_bytes(train.read_bytes())
    fastsft.convert(tmp_path / "in.jsonl", tmp_path / "packed.jsonl.gz")
    fastsft.convert(tmp_path / "in.jsonl", tmp_path / "pairs.jsonl", format="simple")
    (tmp_path / "empty.jsonl").touch()
    (tmp_path / "mark.jsonl").write_bytes(b"\xef\xbb\xbf")
    base = checkout / "examples/configs/sft.yaml"
    before = base.read_bytes(), train.read_bytes()
    for files, vals, output, problem in [
        ([train], [train], "sft.yaml", "trained on and validated with"),
        ([tmp_path / "in.jsonl"], [], "sft.yaml", "does not begin with a row; fastsft convert makes rows"),
        (
            [train, tmp_path / "pairs.jsonl"],
            [],
            "sft.yaml",
            "the files hold rows of several kinds \\(conversation, pair\\)",
        ),
        ([tmp_path / "packed.jsonl.gz"], [], "sft.yaml", "is compressed"),
        ([tmp_path / "empty.jsonl"], [], "sft.yaml", "is empty"),
        ([tmp_path / "mark.jsonl"], [], "sft.yaml", "does not begin with a row; fastsft convert makes rows"),
        ([hidden], [], "sft.yaml", "begins with a dot"),
        ([tmp_path / "no.jsonl"], [], "sft.yaml", "cannot read"),
        ([train], [val], train, "would be overwritten"),
        ([train], [val], base, "no config that fastsft wrote"),
        ([train], [val], tmp_path / "in.jsonl", "no config that fastsft wrote"),
        ([train], [val], Path("/dev/zero"), "cannot write to /dev/zero: it is not a regular file"),
        ([train], [val], tmp_path, "is a folder"),
    ]:
        with pytest.raises(UsageError, match=problem):
            write_config(files, vals, tmp_path / output, Training(), checkout=checkout)
    with pytest.raises(UsageError, match="no checkout of NeMo RL"):
        write_config([train], [], tmp_path / "sft.yaml", Training(), checkout=tmp_path)
    with pytest.raises(UsageError, match="the epochs must be at least 1, not 0"):
        Training(epochs=0)
    assert (base.read_bytes(), train.read_bytes()) == before
    assert not (tmp_path / "sft.yaml").exists()


def test_the_command_prints_what_launches_it(rows, checkout, tmp_path):
    command = [sys.executable, "-m", "fastsft", "nemo-rl", "sft/train.jsonl", "--val", "sft/val.jsonl"]
    options = ["--nemo-rl", "NeMo-RL", "--model", "Qwen/Qwen3-4B", "--sequence-length", "4096", "--no-wandb"]

    done = subprocess.run([*command, *options], cwd=tmp_path, capture_output=True, text=True, timeout=60)

    assert (done.returncode, done.stderr) == (0, "")
    config = f"{os.path.realpath(tmp_path)}/sft_gym_data.yaml"
    run = f"uv run examples/run_sft.py --config {config}"
    assert f"  {run} cluster.gpus_per_node=1 cluster.num_nodes=1\n" in done.stdout
    assert f"  {run} cluster.gpus_per_node=8 cluster.num_nodes=1\n" in done.stdout
    assert f'  COMMAND="{run} cluster.gpus_per_node=8 cluster.num_nodes=2" \\\n' in done.stdout
    assert "  sbatch --nodes=2 --gres=gpu:8 " in done.stdout
    written = loaded(tmp_path / "sft_gym_data.yaml")
    assert written["policy"]["model_name"] == "Qwen/Qwen3-4B"
    assert written["policy"]["max_total_sequence_length"] == 4096
    assert written["logger"]["wandb_enabled"] is False
    assert Path(written["data"]["train"]["data_path"]).is_absolute()


# What the trainer would see.

IMAGE = [{"type": "image", "image": "data:image/png;base64,AA=="}]
CHAT_IMAGE = [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}]


def config_for(folder: Path, *rows: Any, template: Any = None, **training: Any) -> Any:
    (folder / "rows.jsonl").write_bytes(lines(*rows))
    path = folder / "rows.jsonl"
    return write_config([path], [], folder / "sft.yaml", Training(**training), template=template and str(template))


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        (
            {"messages": [turn("system", "s"), turn("user", "?"), assistant("4")]},
            r"would stop at these rows: template_stops \(.*rows.jsonl:2: the beginning up to message 0: ",
        ),
        (
            {"messages": [turn("user", "?"), assistant("4")], "tools": "[]"},
            r"would stop at these rows: string_tools \(.*\n  convert with --tools list for NeMo RL",
        ),
    ],
)
def test_no_config_is_written_over_rows_at_which_the_load_stops(tmp_path, row, problem):
    template = Path(__file__).parent / "data/templates/qwen3_5.jinja"
    good = {"messages": [turn("user", "?"), assistant("4")]}

    with pytest.raises(UsageError, match=problem):
        config_for(tmp_path, good, row, template=template)

    assert not (tmp_path / "sft.yaml").exists()


def test_what_the_template_does_to_rows_is_told_with_its_number(tmp_path, tokenizer):
    template = (Path(__file__).parent / "data/templates/qwen3.jinja").read_text()
    (tokenizer / "chat_template.jinja").write_text(template)
    thinking = [turn("user", "?"), {**assistant("4"), "reasoning_content": "hm"}, turn("user", "!"), assistant("5")]
    long = [turn("user", "a " * 50), assistant("4")]

    told = config_for(
        tmp_path, {"messages": thinking}, {"messages": long}, {"messages": long[1:] + long}, template=tokenizer,
        sequence_length=40,
    ).remarks  # fmt: skip

    assert "These rows may not train well (template_changes 1); fastsft check says where and why." in told
    assert "1 rows lose reasoning in this template: it renders the last turn's alone." in told
    assert "2 rows that are longer fill a place in the batch and teach nothing;" in " ".join(told)


@pytest.mark.parametrize(
    ("content", "training", "problem"),
    [
        (CHAT_IMAGE, {"model": "Qwen/Qwen2.5-VL-3B"}, "would train without the images, sounds or files of 1 rows"),
        (
            IMAGE,
            {},
            r"1 rows have images, sounds or files, and Qwen/Qwen2.5-1.5B looks like a model of text; say --images",
        ),
        (IMAGE, {"model": "Qwen/Qwen2.5-VL-3B"}, None),
        (IMAGE, {"images": True}, None),
        (IMAGE, {"model": "reads"}, None),
        (IMAGE, {"model": "reads_not"}, "looks like a model of text"),
    ],
)
def test_images_are_for_models_that_read_them(tmp_path, monkeypatch, content, training, problem):
    monkeypatch.chdir(tmp_path)
    for name, config in (("reads", '{"vision_config": {}}'), ("reads_not", "{}")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(config)
    row = {"messages": [turn("user", content), assistant("Red.")]}
    if problem is None:
        config_for(tmp_path, row, **training)
    else:
        with pytest.raises(UsageError, match=problem):
            config_for(tmp_path, row, **training)
    assert (tmp_path / "sft.yaml").exists() == (problem is None)


def test_a_model_s_folder_is_absolute_and_mounted_with_the_checkpoints(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models/tiny").mkdir(parents=True)
    rows = [{"messages": [turn("user", f"{n}?"), assistant("4")]} for n in range(64)]

    written = config_for(tmp_path, *rows, model="models/tiny", checkpoint_dir=f"{tmp_path}/out/ckpt", gpus=2, nodes=2)

    assert written.config["policy"]["model_name"] == f"{tmp_path}/models/tiny"
    slurm = written.commands[-1][1]
    for folder in (f"{tmp_path}/models/tiny", f"{tmp_path}/out/ckpt"):
        assert f"{folder}:{folder}" in slurm
    assert slurm.startswith(f"mkdir -p {tmp_path}/out/ckpt && ")
    assert subprocess.run(["bash", "-n", "-c", slurm]).returncode == 0
    assert config_for(tmp_path, *rows, model="Qwen/Qwen3-4B").config["policy"]["model_name"] == "Qwen/Qwen3-4B"
