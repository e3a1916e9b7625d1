"""Rows made `--for` a trainer, read by that trainer's own loader: nothing stops it, and it reads what the row says.

Not collected by itself: `tox -e engines` runs it and installs the trainers. The tokenizer has a token for each byte
and for each control token, so that what a loader makes of a row can be decoded and compared.
"""

from __future__ import annotations

import importlib.util
import json
import sys
import types
from pathlib import Path
from typing import Any

import pytest

import fastsft
from fastsft.checks.controls import control_tokens

torch = pytest.importorskip("torch", reason="tox -e engines installs it")
transformers = pytest.importorskip("transformers")

SPEC = importlib.util.find_spec("trl")
FOLDER = Path(SPEC.submodule_search_locations[0], "chat_templates") if SPEC else Path()  # type: ignore[index]
NAMES = [
    "deepseekv3", "gemma3", "glm4moe", "gptoss", "llama3_1", "nemotron_3_nano", "phi3_5", "qwen2_5", "qwen3", "qwen3_6",
]  # fmt: skip
MOST_NBYTES = 30_000  # of a row: what is longer takes minutes, a token a byte


def tokenizer_with(template: str) -> Any:
    """A tokenizer of bytes that knows the control tokens of a template."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    inner = Tokenizer(models.BPE(vocab={letter: number for number, letter in enumerate(alphabet)}, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    inner.decoder = decoders.ByteLevel()
    special = [*control_tokens([template], []), "<pad>", "<eos>"]
    inner.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in dict.fromkeys(special)])
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=inner, eos_token="<eos>", pad_token="<pad>", chat_template=template
    )


def tiny_model(tokenizer: Any) -> Any:
    shape = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    config = transformers.Qwen2Config(vocab_size=len(tokenizer), num_key_value_heads=1, **shape)
    return transformers.Qwen2ForCausalLM(config)


def converted(real_rollouts: Any, path: Path, trainer: str, **options: Any) -> list[dict[str, Any]]:
    """Write rows for a trainer, the shorter ones of all real rollouts, and return what they say."""
    fastsft.convert(real_rollouts, path, trainer=trainer, reward_threshold=-1e9, allow="all", **options)
    lines = [line for line in path.read_bytes().split(b"\n")[:-1] if len(line) <= MOST_NBYTES]
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    rows = [json.loads(line) for line in lines]
    assert len(rows) > 30
    return rows


def read_by_datasets(folder: Path) -> Any:
    datasets = pytest.importorskip("datasets")
    files = str(folder / "rows.jsonl")
    return datasets.load_dataset("json", data_files=files, split="train", cache_dir=str(folder / "cache"))


def rendered(tokenizer: Any, row: dict[str, Any]) -> str:
    messages, tools = said(row)
    return str(tokenizer.apply_chat_template(messages, tools=tools, tokenize=False))


def said(row: dict[str, Any]) -> tuple[list[Any], Any]:
    """What a template is to be given for a row: arguments and tools as values."""
    messages = json.loads(json.dumps(row["messages"]))
    for message in messages:
        for call in message.get("tool_calls", ()):
            if isinstance(call["function"]["arguments"], str):
                call["function"]["arguments"] = json.loads(call["function"]["arguments"])
    tools = row.get("tools")
    return messages, json.loads(tools) if isinstance(tools, str) else tools


@pytest.mark.parametrize("name", NAMES)
def test_trl_trains_on_rows_that_suit_the_template(name, real_rollouts, tmp_path):
    trl = pytest.importorskip("trl")
    template = FOLDER / f"{name}.jinja"
    rows = converted(
        real_rollouts, tmp_path / "rows.jsonl", "trl", trainable=True, template=template, provenance=("reward", "line")
    )
    tokenizer = tokenizer_with(template.read_text())
    read = read_by_datasets(tmp_path)
    trainer = trl.SFTTrainer(
        model=tiny_model(tokenizer),
        args=trl.SFTConfig(
            output_dir=str(tmp_path / "out"), max_steps=1, per_device_train_batch_size=1, max_length=None,
            report_to=[], use_cpu=True, bf16=False, dataset_num_proc=1, save_strategy="no",
        ),
        train_dataset=read,
        processing_class=tokenizer,
    )  # fmt: skip
    trainer.train()

    assert len(trainer.train_dataset) == len(rows)
    differ = [
        number
        for number, (row, one) in enumerate(zip(rows, trainer.train_dataset, strict=True), 1)
        if tokenizer.decode(one["input_ids"]).removesuffix("<eos>") != rendered(tokenizer, row).removesuffix("<eos>")
    ]
    noted = [
        example.line
        for one in fastsft.check(tmp_path / "rows.jsonl", trainer="trl").notes
        if one.kind == "rounded_numbers"
        for example in one.examples
    ]
    assert set(differ) <= set(noted)


def test_trl_reads_pairs(real_rollouts, tmp_path):
    trl = pytest.importorskip("trl")
    rows = converted(real_rollouts, tmp_path / "rows.jsonl", "trl", format="simple")
    read = read_by_datasets(tmp_path)
    tokenizer = tokenizer_with((FOLDER / "qwen3.jinja").read_text())
    arguments = trl.SFTConfig(output_dir=str(tmp_path / "out"), report_to=[], use_cpu=True, bf16=False, max_length=None)
    trainer = trl.SFTTrainer(
        model=tiny_model(tokenizer), args=arguments, train_dataset=read, processing_class=tokenizer
    )

    learnt = [
        tokenizer.decode([token for token in one["labels"] if token != -100]).removesuffix("<eos>")
        for one in trainer.train_dataset
    ]
    assert learnt == [row["completion"] for row in rows]


@pytest.mark.parametrize("name", ["qwen2_5", "qwen3", "glm4moe"])
def test_axolotl_reads_turns_calls_and_tools_and_learns_the_own_ones(name, real_rollouts, tmp_path):
    strategies = pytest.importorskip("axolotl.prompt_strategies.chat_template")
    dicts = pytest.importorskip("axolotl.utils.dict")
    template = FOLDER / f"{name}.jinja"
    rows = converted(
        real_rollouts, tmp_path / "rows.jsonl", "axolotl", trainable=True, template=template, provenance="reward,line"
    )
    tokenizer = tokenizer_with(template.read_text())
    config = dicts.DictDefault(sequence_len=10**6, train_on_inputs=False, chat_template="tokenizer_default")
    of_rows = {"type": "chat_template", "message_field_training": "weight", "chat_template": "tokenizer_default"}
    strategy = strategies.load(tokenizer, config, of_rows)
    read = read_by_datasets(tmp_path)

    for row, one in zip(rows, read, strict=True):
        made = strategy.tokenize_prompt(one)
        assert tokenizer.decode(made["input_ids"]) == rendered(tokenizer, row)
        learnt = tokenizer.decode([token for token in made["labels"] if token != -100])
        own = [turn for turn in row["messages"] if turn.get("weight") == 1 and turn["content"].strip()]
        others = [turn for turn in row["messages"] if turn.get("weight") == 0 and len(turn["content"]) > 100]
        assert all(turn["content"].strip()[-40:] in learnt for turn in own)
        assert not any(turn["content"] in learnt for turn in others)


def test_llama_factory_leaves_no_row_out(real_rollouts, tmp_path):
    loader, parser = pytest.importorskip("llamafactory.data.loader"), pytest.importorskip("llamafactory.data.parser")
    rows = converted(real_rollouts, tmp_path / "rows.jsonl", "llama-factory", provenance=("reward", "line"))
    dataset_info = {
        "rows": {
            "file_name": "rows.jsonl", "formatting": "openai", "columns": {"messages": "messages", "tools": "tools"},
            "tags": {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant",
                     "observation_tag": "tool", "function_tag": "function", "system_tag": "system"},
        }
    }  # fmt: skip
    (tmp_path / "dataset_info.json").write_text(json.dumps(dataset_info))
    (attributes,) = parser.get_dataset_list(["rows"], str(tmp_path))
    data = types.SimpleNamespace(
        dataset_dir=str(tmp_path), media_dir=str(tmp_path), streaming=False, preprocessing_num_workers=None,
        overwrite_cache=True, max_samples=None, num_proc=None,
    )  # fmt: skip
    model = types.SimpleNamespace(
        cache_dir=str(tmp_path / "c"), hf_hub_token=None, ms_hub_token=None, om_hub_token=None
    )
    read = loader._load_single_dataset(attributes, model, data, types.SimpleNamespace(local_process_index=0))

    assert len(read) == len(rows)
    for row, one in zip(rows, read, strict=True):
        assert one["_response"], "left out"
        said_last = row["messages"][-1]
        calls = [call["function"] for call in said_last.get("tool_calls", ())]
        assert one["_response"][0]["content"] == (
            json.dumps(calls, ensure_ascii=False) if calls else said_last["content"]
        )
        assert (json.loads(one["_tools"]) if one["_tools"] else None) == said(row)[1]


@pytest.mark.parametrize("name", ["qwen2_5", "qwen3", "glm4moe"])
def test_automodel_renders_rows_that_suit_the_template(name, real_rollouts, tmp_path):
    chat = pytest.importorskip("nemo_automodel.components.datasets.llm.chat_dataset")
    template = FOLDER / f"{name}.jinja"
    rows = converted(
        real_rollouts, tmp_path / "rows.jsonl", "automodel", trainable=True, template=template, provenance="reward,line"
    )
    tokenizer = tokenizer_with(template.read_text())
    read = chat.ChatDataset(str(tmp_path / "rows.jsonl"), tokenizer)

    assert len(read) == len(rows)
    for number, row in enumerate(rows):  # arguments are strings for the template, whatever they are in the row
        tools = json.loads(row["tools"]) if isinstance(row.get("tools"), str) else row.get("tools")
        expected = tokenizer.apply_chat_template(row["messages"], tools=tools, tokenize=True)["input_ids"]
        made = list(read[number]["input_ids"])
        assert made in (expected, expected[:-1])  # the last token is a label alone


@pytest.fixture
def verl() -> Any:
    """verl's loader; a part of it that is for Qwen2-VL alone does not import with this version of transformers."""
    qwen2_vl = types.ModuleType("verl.models.transformers.qwen2_vl")
    qwen2_vl.get_rope_index = None  # type: ignore[attr-defined]
    sys.modules.setdefault(qwen2_vl.__name__, qwen2_vl)
    return pytest.importorskip("verl.utils.dataset.multiturn_sft_dataset")


@pytest.mark.parametrize("name", ["qwen2_5", "qwen3", "llama3_1"])
@pytest.mark.parametrize("has_tools", [False, True])
def test_verl_reads_parquet_by_its_own_class_or_with_tools_by_ours(has_tools, name, real_rollouts, tmp_path, verl):
    from omegaconf import OmegaConf

    from fastsft.configs.verl_dataset import JsonColumnsDataset
    from fastsft.storage.parquet import open_parquet, without_nulls

    lines = [line for path in real_rollouts for line in path.read_bytes().split(b"\n") if len(line) <= MOST_NBYTES]
    made = {line: made_for_verl(line) for line in lines}
    chosen = [line for line, row in made.items() if row and (has_tools or not ("tools" in row or "calls" in row))]
    (tmp_path / "in.jsonl").write_bytes(b"".join(line + b"\n" for line in chosen))
    template = FOLDER / f"{name}.jinja"
    fastsft.convert(
        tmp_path / "in.jsonl", tmp_path / "rows.parquet", trainer="verl", reward_threshold=-1e9, allow="all",
        provenance="reward,line",
    )  # fmt: skip
    rows = [json.loads(line) for line in open_parquet(str(tmp_path / "rows.parquet"))]
    tokenizer = tokenizer_with(template.read_text())
    config = OmegaConf.create({"pad_mode": "no_padding", "max_length": 10**6, "ignore_input_ids_mismatch": True})
    read = (JsonColumnsDataset if has_tools else verl.MultiTurnSFTDataset)(
        [str(tmp_path / "rows.parquet")], tokenizer, config
    )

    assert len(read) == len(rows) > 30
    for number, row in enumerate(rows):
        messages, tools = said(row)
        built = read._build_messages(read.dataframe.iloc[number].to_dict())
        assert (built if has_tools else without_nulls(built)) == messages
        assert (read.tools[number] if read.tools is not None else None) == tools
        try:
            for message in messages:
                tokenizer.apply_chat_template([message], tools=tools, tokenize=False)
            tokenizer.apply_chat_template(messages, tools=tools, tokenize=False)
        except Exception:
            continue  # the template wants more than one message
        assert tokenizer.decode(read[number]["input_ids"])


def made_for_verl(line: bytes) -> dict[str, Any] | None:
    try:
        row = fastsft.to_row(line, trainer="verl")
    except fastsft.Refused:
        return None
    return {**row, **({"calls": True} if any("tool_calls" in turn for turn in row["messages"]) else {})}


def test_openai_has_a_type_for_every_message_and_tool(real_rollouts, tmp_path):
    pydantic, chat = pytest.importorskip("pydantic"), pytest.importorskip("openai.types.chat")
    rows = converted(real_rollouts, tmp_path / "rows.jsonl", "openai")
    turns = {
        "system": chat.ChatCompletionSystemMessageParam,
        "user": chat.ChatCompletionUserMessageParam,
        "assistant": chat.ChatCompletionAssistantMessageParam,
        "tool": chat.ChatCompletionToolMessageParam,
    }
    adapters = {role: pydantic.TypeAdapter(kind) for role, kind in turns.items()}
    tool = pydantic.TypeAdapter(chat.ChatCompletionFunctionToolParam)
    known = {
        role: set(kind.__annotations__) | ({"weight"} if role == "assistant" else set()) for role, kind in turns.items()
    }

    for row in rows:
        assert row.keys() <= {"messages", "tools"}
        for message in row["messages"]:
            assert message.keys() <= known[message["role"]]
            assert message.get("weight", 1) in (0, 1)
            adapters[message["role"]].validate_python({name: message[name] for name in message if name != "weight"})
        for offered in row.get("tools", ()):
            tool.validate_python(offered)
