"""The config for NeMo RL's DPO and reward model, loaded as NeMo RL does, and pairs read as its loader reads them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from builders import Json, assistant, chat_call, lines, turn
from test_nemo_rl import everything_in, loaded

from fastsft.configs.nemo_rl import write_config
from fastsft.configs.nemo_rl_config import batches_of
from fastsft.configs.training import DPO, Training
from fastsft.errors import UsageError

# What `examples/configs/dpo.yaml` and `rm.yaml` of NeMo RL (7ea279a) have where it matters here.
DATA = {
    "max_input_seq_length": "${policy.max_total_sequence_length}",
    "shuffle": True,
    "num_workers": 1,
    "train": {"dataset_name": "HelpSteer3", "split": "train"},
    "validation": {"dataset_name": "HelpSteer3", "split": "validation"},
}
BASES: dict[str, Json] = {
    "dpo": {
        "dpo": {
            "max_num_epochs": 1, "max_num_steps": 150, "val_period": 25, "val_batches": 8, "val_at_start": True,
            "reference_policy_kl_penalty": 0.05, "sft_loss_weight": 0,
        },
        "checkpointing": {"checkpoint_dir": "results/dpo", "metric_name": "val:validation-default_loss"},
        "policy": {
            "model_name": "meta-llama/Llama-3.2-1B-Instruct",
            "tokenizer": {"name": "meta-llama/Llama-3.2-1B-Instruct", "chat_template_kwargs": None},
            "train_global_batch_size": 128,
            "train_micro_batch_size": 2,
            "max_total_sequence_length": 1024,
            "precision": "bfloat16",
            "sequence_packing": {"enabled": False},
            "dynamic_batching": {"enabled": False},
        },
        "data": DATA,
        "logger": {"wandb_enabled": False, "wandb": {"project": "dpo-dev", "name": "dpo"}},
        "cluster": {"gpus_per_node": 1, "num_nodes": 1},
    },
    "rm": {
        "rm": {"max_num_epochs": 1, "max_num_steps": -1, "val_period": 16, "val_batches": -1, "val_at_start": False},
        "checkpointing": {"checkpoint_dir": "results/rm", "metric_name": "val:validation-default_loss"},
        "policy": {
            "model_name": "meta-llama/Llama-3.2-1B-Instruct",
            "tokenizer": {"name": "${policy.model_name}", "chat_template": "{{ llama }}", "chat_template_kwargs": None},
            "train_global_batch_size": 128,
            "train_micro_batch_size": 1,
            "max_total_sequence_length": 8192,
            "reward_model_cfg": {"enabled": True, "reward_model_type": "bradley_terry"},
        },
        "data": DATA,
        "logger": {"wandb_enabled": True, "wandb": {"project": "rm-dev", "name": "rm-dev-${data.train.dataset_name}"}},
        "cluster": {"gpus_per_node": 1, "num_nodes": 1},
    },
}  # fmt: skip


# The rules of `load_preference_dataset`, `setup_preference_data` and `preference_preprocessor`, restated.


def as_nemo_rl_reads(config: Json, split: str) -> list[tuple[list[Json], list[Json]]]:
    """The conversations of the chosen and the rejected side of each pair, as NeMo RL gives them to the template."""
    data = config["data"]
    block = data[split]
    assert isinstance(block, dict), "a list has no key that a default could be missing from"
    block = {**data.get("default", {}), **block}
    path = block["data_path"]
    assert "-".join(path.split("/")[-2:]).split(".")[0], "the name of the task has a first character"
    assert os.path.splitext(path)[1] in (".json", ".jsonl")
    assert "subset" not in block
    assert block.get("split") in (None, "train"), "a local file has that split alone"
    rows = [json.loads(line) for line in Path(path).read_bytes().splitlines()]
    if block["dataset_name"] == "BinaryPreferenceDataset":
        rows = [as_preference(row, block) for row in rows]
    else:
        assert block["dataset_name"] == "PreferenceDataset"
    return [sides_of(row) for row in rows]


def as_preference(row: Json, block: Json) -> Json:
    prompt = row[block.get("prompt_key", "prompt")]
    sides = (row[block.get(f"{name}_key", name)] for name in ("chosen", "rejected"))
    return {
        "context": prompt if isinstance(prompt, list) else [turn("user", prompt)],
        "completions": [{"rank": rank, "completion": [assistant(text)]} for rank, text in enumerate(sides)],
    }


def sides_of(row: Json) -> tuple[list[Json], list[Json]]:
    first, second = row["completions"]
    assert first["rank"] != second["rank"], "ties are not supported"
    chosen, rejected = (first, second) if first["rank"] < second["rank"] else (second, first)
    return row["context"] + chosen["completion"], row["context"] + rejected["completion"]


def check_training(config: Json, rows: int) -> None:
    """The assertions of `dpo.setup`, of its loader's batches, and of `policy.train`."""
    policy = config["policy"]
    assert not policy["dynamic_batching"]["enabled"]
    assert not policy["sequence_packing"]["enabled"]
    batch, micro_batch = policy["train_global_batch_size"], policy["train_micro_batch_size"]
    workers = config["cluster"]["gpus_per_node"] * config["cluster"]["num_nodes"]
    assert rows // batch > 0, "the last batch is left out where it is not full, so there is no step"
    assert (2 * batch) % (workers * 2 * micro_batch) == 0


@pytest.fixture
def checkout(tmp_path):
    """A checkout of NeMo RL, as far as it matters here."""
    folder = tmp_path / "NeMo-RL/examples/configs"
    folder.mkdir(parents=True)
    for name, base in BASES.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(base))
    return tmp_path / "NeMo-RL"


def pair(number: int, chosen: Any = None, rejected: Any = None) -> Json:
    sides = [chosen or assistant(f"{number}!"), rejected or assistant("no")]
    completions = [{"rank": rank, "completion": [side]} for rank, side in enumerate(sides)]
    return {"context": [turn("user", f"{number}?")], "completions": completions}


def binary(number: int) -> Json:
    rewards = {"reward_gap": 1.0, "chosen_reward": 1.0, "rejected_reward": 0.0}
    return {"prompt": f"{number}?", "chosen": f"{number}!", "rejected": "no", **rewards}


def written(folder: Path, rows: list[Json], checkout: Path, *, val: list[Json] | None = None, **more: Any) -> Any:
    (folder / "train.jsonl").write_bytes(lines(*rows))
    (folder / "val.jsonl").write_bytes(lines(*val or []))
    reward_model = more.pop("reward_model", False)
    output = folder / "out.yaml"
    return write_config(
        [folder / "train.jsonl"], [folder / "val.jsonl"] if val else [], output, Training(**more),
        checkout=checkout, reward_model=reward_model,
    )  # fmt: skip


@pytest.mark.parametrize("reward_model", [False, True])
@pytest.mark.parametrize("make", [pair, binary])
def test_the_loader_reads_each_pair_with_the_better_side_first(tmp_path, checkout, make, reward_model):
    rows = [make(number) for number in range(300)]

    written(tmp_path, rows[:250], checkout, val=rows[250:], reward_model=reward_model)

    config = loaded(tmp_path / "out.yaml")
    expected = [
        ([turn("user", f"{n}?"), assistant(f"{n}!")], [turn("user", f"{n}?"), assistant("no")]) for n in range(300)
    ]
    assert as_nemo_rl_reads(config, "train") == expected[:250]
    assert as_nemo_rl_reads(config, "validation") == expected[250:]
    check_training(config, 250)


def test_the_config_of_dpo(tmp_path, checkout):
    written(tmp_path, [pair(n) for n in range(300)], checkout, val=[pair(300)])

    config = loaded(tmp_path / "out.yaml")
    assert config["data"] == {
        "max_input_seq_length": "${policy.max_total_sequence_length}",
        "shuffle": True,
        "num_workers": 1,
        "train": {"data_path": str(tmp_path / "train.jsonl"), "dataset_name": "PreferenceDataset"},
        "validation": {"data_path": str(tmp_path / "val.jsonl"), "dataset_name": "PreferenceDataset"},
        "default": {"prompt_file": None, "system_prompt_file": None},
    }
    assert config["policy"] == {
        "model_name": "Qwen/Qwen2.5-1.5B",
        "tokenizer": {"name": "${policy.model_name}", "chat_template": "default", "chat_template_kwargs": None},
        "train_global_batch_size": 128,
        "train_micro_batch_size": 2,
        "max_total_sequence_length": 1024,
        "precision": "bfloat16",
        "sequence_packing": {"enabled": False},
        "dynamic_batching": {"enabled": False},
    }
    assert config["dpo"] == {
        "max_num_epochs": 1,
        "max_num_steps": 1_000_000_000,
        "val_period": 100,
        "val_batches": 8,
        "val_at_start": True,
        "val_at_end": True,
        "reference_policy_kl_penalty": 0.05,
        "sft_loss_weight": 0,
    }
    assert config["checkpointing"] == {
        "enabled": True,
        "checkpoint_dir": "results/gym_dpo",
        "metric_name": "val:validation-default_loss",
        "higher_is_better": False,
        "save_period": 100,
    }
    assert config["logger"]["wandb"] == {"project": "nemo-gym-dpo", "name": "gym-dpo-run-1"}


def test_the_config_of_a_reward_model(tmp_path, checkout):
    written(tmp_path, [pair(n) for n in range(300)], checkout, reward_model=True, epochs=2, run="mine")

    config = loaded(tmp_path / "out.yaml")
    assert config["rm"] == {
        "max_num_epochs": 2,
        "max_num_steps": 1_000_000_000,
        "val_period": 0,
        "val_batches": -1,
        "val_at_start": False,
        "val_at_end": False,
    }
    assert "dpo" not in config
    assert config["policy"]["tokenizer"]["chat_template"] == "default"
    assert config["policy"]["reward_model_cfg"] == {"enabled": True, "reward_model_type": "bradley_terry"}
    assert config["checkpointing"]["checkpoint_dir"] == "results/gym_rm"
    assert config["checkpointing"]["metric_name"] is None
    assert config["data"]["validation"] is None
    assert config["logger"]["wandb"] == {"project": "nemo-gym-rm", "name": "mine"}


@pytest.mark.parametrize("reward_model", [False, True])
def test_nothing_of_the_base_names_other_data(tmp_path, checkout, reward_model):
    written(tmp_path, [pair(n) for n in range(9)], checkout, val=[pair(9)], reward_model=reward_model)

    words = [str(word) for word in everything_in(loaded(tmp_path / "out.yaml"))]
    assert not [word for word in words if "HelpSteer" in word or "data.train.dataset_name" in word or word == "split"]


def test_the_length_is_that_of_the_longer_side(tmp_path, checkout):
    long = [pair(n, assistant("x" * 20_000), assistant("y" * 100)) for n in range(5)]
    long += [pair(n, assistant("x" * 100), assistant("y" * 20_000)) for n in range(5, 10)]
    both = pair(10, assistant("x" * 20_000), assistant("y" * 20_000))

    told = written(tmp_path, [*long, both], checkout)

    assert (
        told.config["policy"]["max_total_sequence_length"] == 8192
    )  # a third of 20,000 bytes and a few, not of 40,000
    assert "half of the longer sides, behind their context, have at most 6,69" in " ".join(told.remarks)


def test_a_pair_of_just_the_length_is_not_too_long(tmp_path, checkout, tokenizer):
    longer = [pair(n, None, assistant("a " * 48)) for n in range(2)]
    (tmp_path / "train.jsonl").write_bytes(lines(*longer, *(pair(n, assistant("a " * 38)) for n in range(9))))

    def remarks_at(length: int) -> str:
        training = Training(sequence_length=length)
        out, train = tmp_path / "out.yaml", [tmp_path / "train.jsonl"]
        return " ".join(write_config(train, [], out, training, checkout=checkout, template=str(tokenizer)).remarks)

    longest = 40  # the beginning of the sequence, a question, 38 words
    assert "fill a place" not in remarks_at(longest + 10)
    assert "2 pairs that are longer fill a place in the batch and teach nothing." in remarks_at(longest)
    assert "11 pairs that are longer fill a place in the batch and teach nothing." in remarks_at(longest - 1)


def test_steps_and_batches_are_counted_in_pairs(tmp_path, checkout):
    told = written(tmp_path, [pair(n) for n in range(20)], checkout, epochs=3)

    assert told.config["policy"]["train_global_batch_size"] == 16
    assert "Batches of 16 pairs, as there are 20, and NeMo RL leaves out a batch that is not full." in told.remarks
    assert "Steps: 3, of 16 pairs each; epochs: 3. No limit ends it before." in told.remarks
    with pytest.raises(UsageError, match="a batch of 32 pairs is more than there are"):
        written(tmp_path, [pair(n) for n in range(20)], checkout, global_batch=32)
    assert batches_of(Training(), 240, gpus=8, nodes=2, algorithm=DPO) == (128, 2)
    assert batches_of(Training(micro_batch=8), 240, gpus=8, nodes=2, algorithm=DPO) == (128, 8)


def test_what_pairs_lose_is_told(tmp_path, checkout):
    calling = {**turn("assistant", ""), "tool_calls": [chat_call("add", {"a": 2})]}
    rows = [pair(n, assistant("x" * 90), calling if n == 3 else None) for n in range(20)]

    remarks = " ".join(written(tmp_path, rows, checkout).remarks)

    assert "1 pairs have tools or calls, and NeMo RL shows no template the tools" in remarks
    assert "1 pairs have arguments that are objects, which the loader may fill in with nulls" in remarks
    assert "The chosen sides are longer (chosen 125 bytes on average, rejected 42; chosen is longer in 95%)" in remarks


@pytest.mark.parametrize(
    ("bad", "problem"),
    [
        ({**pair(1), "completions": pair(1)["completions"][:1]}, r"bad_pair \(.*train.jsonl:2: completions: 1, and"),
        (
            {**pair(1), "completions": [{**one, "rank": 0} for one in pair(1)["completions"]]},
            r"tie \(.*train.jsonl:2: ",
        ),
        (binary(1), "mixed_rows"),
        ({"messages": [turn("user", "?"), assistant("!")]}, "mixed_rows"),
        ({"context": []}, "not_a_row"),
    ],
)
def test_pairs_at_which_the_load_stops_are_refused(tmp_path, checkout, bad, problem):
    with pytest.raises(UsageError, match=f"NeMo RL would stop at these rows: {problem}"):
        written(tmp_path, [pair(0), bad, pair(2)], checkout)
    assert not (tmp_path / "out.yaml").exists()


def test_wrong_words_are_told_and_nothing_is_written(tmp_path, checkout):
    files = {
        "a": [pair(1)], "b": [pair(2)], "c": [binary(3)],
        "trl": [{"prompt": [turn("user", "?")], "chosen": [assistant("!")], "rejected": [assistant(".")]}],
        "sft": [{"messages": [turn("user", "?"), assistant("!")]}],
    }  # fmt: skip
    paths = {name: tmp_path / f"{name}.jsonl" for name in files}
    for name, rows in files.items():
        paths[name].write_bytes(lines(*rows))
    for train, val, reward_model, problem in [
        ("ab", "", False, "NeMo RL opens one file of pairs to learn from, and these are 2; write one"),
        ("a", "ab", False, "is to be trained on and validated with"),
        ("c", "ab", False, r"the files hold rows of several kinds \(binary, nemo-rl\)"),
        (["trl"], "", False, "NeMo RL reads no pairs of the format trl; make them with fastsft pairs --format nemo-rl"),
        (["sft"], "", True, "a reward model learns from pairs, and these rows are none"),
    ]:
        with pytest.raises(UsageError, match=problem):
            write_config(
                [paths[name] for name in train], [paths[name] for name in val], tmp_path / "out.yaml", Training(),
                checkout=checkout, reward_model=reward_model,
            )  # fmt: skip
    (checkout / "examples/configs/rm.yaml").unlink()
    with pytest.raises(UsageError, match=r"is no checkout of NeMo RL: it has no examples/configs/rm.yaml"):
        write_config([paths["a"]], [], tmp_path / "out.yaml", Training(), checkout=checkout, reward_model=True)
    assert not (tmp_path / "out.yaml").exists()


@pytest.mark.parametrize(("words", "name"), [([], "dpo"), (["--reward-model"], "rm")])
def test_the_command_prints_what_launches_it(tmp_path, checkout, words, name):
    (tmp_path / "pairs.jsonl").write_bytes(lines(*(pair(n) for n in range(300))))
    command = [sys.executable, "-m", "fastsft", "nemo-rl", "pairs.jsonl", "--nemo-rl", "NeMo-RL", *words]

    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)

    assert (done.returncode, done.stderr) == (0, "")
    run = f"uv run examples/run_{name}.py --config {os.path.realpath(tmp_path)}/{name}.yaml"
    assert f"  {run} cluster.gpus_per_node=1 cluster.num_nodes=1\n" in done.stdout
    assert f"  {run} cluster.gpus_per_node=8 cluster.num_nodes=1\n" in done.stdout
    assert f'  COMMAND="{run} cluster.gpus_per_node=8 cluster.num_nodes=2" \\\n' in done.stdout
    assert "  sbatch --nodes=2 --gres=gpu:8 " in done.stdout
    assert loaded(tmp_path / f"{name}.yaml")["data"]["train"]["data_path"].endswith("/pairs.jsonl")


def test_without_a_checkout_it_is_said_where_the_file_goes(tmp_path, checkout):
    (tmp_path / "pairs.jsonl").write_bytes(lines(*(pair(n) for n in range(9))))

    told = write_config([tmp_path / "pairs.jsonl"], [], tmp_path / "dpo.yaml", Training())

    assert told.remarks[-1] == "Put dpo.yaml into the folder examples/ of NeMo RL, where configs/dpo.yaml is beside it."
    (checkout / "examples/dpo.yaml").write_bytes((tmp_path / "dpo.yaml").read_bytes())
    assert loaded(checkout / "examples/dpo.yaml")["policy"]["precision"] == "bfloat16"
