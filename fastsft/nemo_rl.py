"""Write the config with which NeMo RL trains on files of rows, after a look at the rows."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from fastsft.checks.run import check_rows
from fastsft.checks.total import CheckReport
from fastsft.errors import UsageError, told
from fastsft.lines import line_starts, lines_in
from fastsft.nemo_rl_config import Training, commands_of, config_of
from fastsft.shards import Chunk, Shard, find_shards, is_same_file

BASE = "examples/configs/sft.yaml"  # in a checkout of NeMo RL
_BASE_BESIDE = "configs/sft.yaml"  # the same, from a file in `examples/`
_BYTES_PER_TOKEN = 3  # English has 4 to 5, JSON and other scripts fewer: rather too long than too short
_SHORTEST = 1024  # the guide's sequence length
_any = msgspec.json.Decoder()


class Written(msgspec.Struct):
    """What was written, and what a person should know of it, as sentences, and the commands that train."""

    path: str
    config: dict[str, Any]
    remarks: list[str]
    commands: list[tuple[str, str]]


def write_config(
    train: Sequence[str | os.PathLike[str]],
    val: Sequence[str | os.PathLike[str]],
    output: str | os.PathLike[str],
    training: Training,
    *,
    checkout: str | os.PathLike[str] | None = None,
    template: str | None = None,
    jobs: int | None = None,
) -> Written:
    """Write the config for files of rows, and read it back.

    Args:
        train: Files or folders of rows to learn from.
        val: The same for validation; none for a run without.
        output: The YAML file.
        training: What is to be trained and how.
        checkout: A checkout of NeMo RL, whose base config the file extends.
        template: The tokenizer's folder, to count tokens exactly.
        jobs: Worker processes that read the rows.

    Raises:
        UsageError: The arguments are wrong, or NeMo RL could not load the rows; nothing was written.
        FailedRun: The rows could not be read, or the file not written.
    """
    yaml = _yaml()
    path = Path(os.path.abspath(output))
    train_shards, val_shards = _plain(train), _plain(val) if val else []
    for shard in [*train_shards, *val_shards]:
        if is_same_file(path, shard):
            raise UsageError(f"{shard.path} holds rows and would be overwritten; choose another output")
    learnt, asked = ({os.path.realpath(shard.path) for shard in some} for some in (train_shards, val_shards))
    if twice := learnt & asked:
        raise UsageError(f"{min(twice)} is to be trained on and validated with; split them: convert --val")
    base = _base_of(checkout, path)
    kinds = {_kind_of(shard) for shard in [*train_shards, *val_shards]}
    if len(kinds) > 1:
        raise UsageError("some files hold conversations and others pairs of input and output; train on one of them")
    checked = check_rows([shard.path for shard in train_shards], template=template, jobs=jobs)
    remarks: list[str] = []
    if not checked.rows:
        raise UsageError("the files hold no row to train on")
    if checked.findings:
        found = ", ".join(f"{one.kind} {one.rows:,}" for one in checked.findings)
        remarks.append(f"These rows may not train ({found}); fastsft check says where and why.")
    length = training.sequence_length or _length_for(checked, remarks)
    batches = _batches(training, checked.rows, remarks)
    config = config_of(base, training, kinds.pop(), train_shards, val_shards, length, batches)
    if checkout is None:
        remarks.append(f"Put {path.name} into the folder examples/ of NeMo RL, where {_BASE_BESIDE} is beside it.")
    text = yaml.safe_dump(config, sort_keys=False, allow_unicode=True, width=1000)
    if yaml.safe_load(text) != config:
        raise AssertionError("the config does not survive being written, please report this")
    part = path.with_name(f"{path.name}.part")
    with told(path, "nothing was written"):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            part.write_text(text, encoding="utf-8")
            os.replace(part, path)
        finally:
            with contextlib.suppress(FileNotFoundError):
                part.unlink()
    return Written(str(path), config, remarks, commands_of(path, training, checkout, [*train_shards, *val_shards]))


def _yaml() -> Any:
    try:
        import yaml  # type: ignore[import-untyped, unused-ignore] # an extra
    except ModuleNotFoundError:
        raise UsageError("writing YAML needs an extra: pip install 'fastsft[nemo-rl]'") from None
    return yaml


def _plain(paths: Sequence[str | os.PathLike[str]]) -> list[Shard]:
    """Find files of rows that NeMo RL can open, by their absolute paths."""
    shards, _ = find_shards([os.path.abspath(path) for path in paths])
    for shard in shards:
        if shard.compression:
            raise UsageError(f"{shard.path} is compressed, and NeMo RL reads plain files; decompress it")
        if not shard.nbytes:
            raise UsageError(f"{shard.path} is empty, and NeMo RL stops at a file without rows")
        # Its name for a dataset: the last two parts of the path, up to the first dot.
        if not "-".join(shard.path.split("/")[-2:]).split(".")[0]:
            raise UsageError(f"{shard.path} is in a folder that begins with a dot, at which NeMo RL stops; move it")
    return shards


def _base_of(checkout: str | os.PathLike[str] | None, path: Path) -> str:
    if checkout is None:
        return _BASE_BESIDE
    base = Path(os.path.abspath(checkout), BASE)
    if not base.is_file():
        raise UsageError(f"{checkout} is no checkout of NeMo RL: it has no {BASE}")
    if path.exists() and os.path.samefile(path, base):
        raise UsageError(f"{path} is NeMo RL's own config and would be overwritten; choose another output")
    return str(base)


def _kind_of(shard: Shard) -> str:
    """Look at the first row of a file: a `conversation`, or a `pair` of input and output."""
    for lines in lines_in(Chunk(shard, 0, min(shard.nbytes, 1)), nbytes=1, max_line=1 << 40):
        line = lines.data[: line_starts(lines.data)[1] - 1]
        with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            row = _any.decode(line)
            if isinstance(row, dict) and isinstance(row.get("messages"), list):
                return "conversation"
            if isinstance(row, dict) and {"input", "output"} <= row.keys() and "responses_create_params" not in row:
                return "pair"
    raise UsageError(f"{shard.path} does not begin with a row; fastsft convert makes rows of rollouts")


def _length_for(checked: CheckReport, remarks: list[str]) -> int:
    """Give the power of two that 99 % of the rows fit in; NeMo RL gives a row of just that length no loss."""
    if "tokens" in checked.lengths:
        how, lengths = "", checked.lengths["tokens"]
    else:
        how = f", taking {_BYTES_PER_TOKEN} bytes for a token (--template FOLDER counts them)"
        lengths = {part: -(-nbytes // _BYTES_PER_TOKEN) for part, nbytes in checked.lengths["nbytes"].items()}
    length = max(_SHORTEST, 1 << lengths["0.99"].bit_length())
    remarks.append(
        f"Sequence length {length:,}: 99 % of the rows have at most {lengths['0.99']:,} tokens, the longest "
        f"{lengths['1.0']:,}{how}."
    )
    if lengths["1.0"] >= length:
        remarks.append("Longer rows fill a place in the batch and teach nothing; convert --max-tokens leaves them out.")
    return length


def _batches(training: Training, rows: int, remarks: list[str]) -> tuple[int, int]:
    batch = training.global_batch or 128
    if rows >= batch:
        return batch, training.micro_batch
    if training.global_batch:
        raise UsageError(f"a batch of {batch:,} rows is more than there are ({rows:,}), and NeMo RL would make no step")
    batch = 1 << (rows.bit_length() - 1)
    why = f"as there are {rows:,} alone, and NeMo RL leaves out a batch that is not full"
    remarks.append(f"Batches of {batch:,} rows, {why}.")
    return batch, min(training.micro_batch, batch)
