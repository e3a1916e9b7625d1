"""TRL's own trainers load pairs and train on them; tox -e engines runs it, not the tests, as it installs torch."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path
from typing import Any

import generate
import pytest

import fastsft

datasets = pytest.importorskip("datasets", reason="tox -e engines installs datasets")
transformers = pytest.importorskip("transformers", reason="tox -e engines installs transformers")
trl = pytest.importorskip("trl", reason="tox -e engines installs TRL")

pytestmark = pytest.mark.filterwarnings("default")  # theirs are not ours to mend

TEMPLATE = (
    "{% for t in tools or [] %}<tool>{{ t.function.name }}\n{% endfor %}"
    "{% for m in messages %}<{{ m.role }}>{{ m.reasoning_content or '' }}{{ m.content }}"
    "{% for c in m.tool_calls or [] %}{{ c.function.name }}({{ c.function.arguments }}){% endfor %}\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


@pytest.fixture(scope="module")
def shard(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("in") / "in.jsonl"
    path.write_bytes(b"".join(islice(generate.lines("attempts", seed=3), 160)))
    return path


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    """One token for each byte."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {letter: number for number, letter in enumerate([*letters, "<pad>", "<eos>"])}
    model = Tokenizer(models.BPE(vocabulary, []))
    model.pre_tokenizer, model.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    made = transformers.PreTrainedTokenizerFast(tokenizer_object=model, pad_token="<pad>", eos_token="<eos>")
    made.chat_template = TEMPLATE
    return made


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Where a tiny model is: TRL loads what it compares it with from there."""
    path = str(tmp_path_factory.mktemp("model"))
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.LlamaConfig(vocab_size=300, num_key_value_heads=2, max_position_embeddings=16384, **sizes)
    transformers.LlamaForCausalLM(config).save_pretrained(path)
    return path


def load(path: Path) -> Any:
    return datasets.load_dataset("json", data_files=str(path), split="train", cache_dir=str(path.parent / "cache"))


def arguments(kind: Any, folder: Path, **more: Any) -> Any:
    return kind(
        output_dir=str(folder / "trained"), max_steps=2, per_device_train_batch_size=2, max_length=16384, use_cpu=True,
        report_to=[], bf16=False, gradient_checkpointing=False, save_strategy="no", **more,
    )  # fmt: skip


@pytest.mark.parametrize("turn", ["first-difference", "whole"])
def test_dpo_trains_on_what_differs_alone(shard, tokenizer, model, tmp_path, turn):
    fastsft.pairs(shard, tmp_path / "pairs.jsonl", format="trl", turn=turn)
    rows = [json.loads(row) for row in (tmp_path / "pairs.jsonl").read_bytes().splitlines()]

    trainer = trl.DPOTrainer(
        model, args=arguments(trl.DPOConfig, tmp_path), train_dataset=load(tmp_path / "pairs.jsonl"),
        processing_class=tokenizer,
    )  # fmt: skip

    assert len(rows) == 20
    seen = {row["tools"] for row in rows if "tools" in row}
    assert len(seen) == 1
    for row, loaded in zip(rows, trainer.train_dataset, strict=True):
        tools = json.loads(row["tools"]) if "tools" in row else None
        prompt = tokenizer.apply_chat_template(row["prompt"], tools=tools, add_generation_prompt=True, tokenize=False)
        assert tokenizer.decode(loaded["prompt_ids"]) == prompt
        for side in ("chosen", "rejected"):
            whole = tokenizer.apply_chat_template(row["prompt"] + row[side], tools=tools, tokenize=False)
            assert tokenizer.decode(loaded["prompt_ids"] + loaded[f"{side}_ids"]).removesuffix("<eos>") == whole
    trainer.train()


def test_kto_trains_on_judged_rollouts(shard, tokenizer, model, tmp_path):
    report = fastsft.pairs(shard, tmp_path / "rows.jsonl", format="kto", turn="whole", balance=True)
    rows = load(tmp_path / "rows.jsonl")

    trainer = trl.KTOTrainer(
        model, args=arguments(trl.KTOConfig, tmp_path), train_dataset=rows, processing_class=tokenizer
    )

    assert report.pairs is not None
    assert sorted(rows["label"]) == [False] * report.pairs.rejected + [True] * report.pairs.chosen
    assert report.pairs.rejected == report.pairs.chosen > 20
    trainer.train()


def test_the_reward_model_trains_on_pairs(shard, tokenizer, tmp_path):
    fastsft.pairs(shard, tmp_path / "pairs.jsonl", format="trl")
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.LlamaConfig(
        vocab_size=300, num_key_value_heads=2, max_position_embeddings=16384, num_labels=1, pad_token_id=256, **sizes
    )
    judge = transformers.LlamaForSequenceClassification(config)

    trainer = trl.RewardTrainer(
        judge, args=arguments(trl.RewardConfig, tmp_path), train_dataset=load(tmp_path / "pairs.jsonl"),
        processing_class=tokenizer,
    )  # fmt: skip

    trainer.train()
