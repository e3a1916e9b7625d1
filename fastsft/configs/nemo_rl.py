"""Write the config with which NeMo RL trains on files of rows, after a look at the rows."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import yaml

from fastsft.checks.preferences import kind_of_row
from fastsft.checks.renderer import check_template, renderer_at
from fastsft.checks.report import CheckReport
from fastsft.checks.run import check_rows
from fastsft.configs.nemo_rl_config import DEFAULT_BATCH, batches_of, commands_of, config_of, reads_images
from fastsft.configs.nemo_rl_pairs import algorithm_for, check_files, pairs_config_of, told_of_pairs
from fastsft.configs.training import SFT, Algorithm, Training, check_name
from fastsft.errors import UsageError
from fastsft.execution.placement import Placement
from fastsft.inputs.lines import lines_in
from fastsft.inputs.shards import ByteRange, Shard, find_shards, is_same_file
from fastsft.options import DEFAULT_RENDER_SECONDS
from fastsft.report import Progress, Report
from fastsft.storage.files import read_file, rewrite
from fastsft.storage.whole import written_whole

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
    output: str | os.PathLike[str] | None,
    training: Training,
    *,
    reward_model: bool = False,
    checkout: str | os.PathLike[str] | None = None,
    template: str | None = None,
    render_seconds: float = DEFAULT_RENDER_SECONDS,
    jobs: int | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> Written:
    """Write the config for files of rows, and read it back.

    Args:
        train: Files or folders of rows to learn from.
        val: The same for validation; none for a run without.
        output: The YAML file; None for one named by the algorithm.
        training: What is to be trained and how.
        reward_model: Whether pairs are for a reward model, and not for DPO.
        checkout: A checkout of NeMo RL, whose base config the file extends.
        template: The tokenizer's folder, to count tokens exactly.
        render_seconds: How long the template may take for a row.
        jobs: Worker processes that read the rows.
        on_progress: Called after each chunk of rows, of those to learn from, then of those for validation.

    Raises:
        UsageError: The arguments are wrong, or NeMo RL could not load the rows; nothing was written.
        FailedRun: The rows could not be read, or the file not written.
    """
    train_shards, val_shards = _plain(train), _plain(val) if val else []
    kinds = {_kind_of(shard) for shard in [*train_shards, *val_shards]}
    if len(kinds) > 1:
        raise UsageError(f"the files hold rows of several kinds ({', '.join(sorted(kinds))}); train on one of them")
    (kind,) = kinds
    algorithm = algorithm_for(kind, reward_model=reward_model)
    path = Path(os.path.abspath(algorithm.output if output is None else output))
    for shard in [*train_shards, *val_shards]:
        if is_same_file(path, shard.path):
            raise UsageError(f"{shard.path} holds rows and would be overwritten; choose another output")
    learnt, asked = ({os.path.realpath(shard.path) for shard in some} for some in (train_shards, val_shards))
    if twice := learnt & asked:
        raise UsageError(f"{min(twice)} is to be trained on and validated with; split them: convert --val")
    for folder in train:
        _check_splits(Path(folder), learnt)
    if algorithm is not SFT:
        check_files(train_shards, val_shards)
    base = _base_of(checkout, algorithm)
    _check_output(path)
    if template is not None:
        check_template(template, render_seconds, counting=False)
    remarks: list[str] = []
    look = partial(
        _checked,
        template=template,
        render_seconds=render_seconds,
        training=training,
        algorithm=algorithm,
        jobs=jobs,
        on_progress=on_progress,
        remarks=remarks,
    )
    checked = look(train_shards)
    if val_shards:
        look(val_shards, of="for validation ")
    length = training.sequence_length or _length_for(checked)
    remarks += _told_of_length(length, checked, algorithm)
    batches = batches_of(training, checked.rows, gpus=training.gpus, nodes=training.nodes, algorithm=algorithm)
    if batches[0] < (training.global_batch or DEFAULT_BATCH):
        why = f"as there are {checked.rows:,}, and NeMo RL leaves out a batch that is not full"
        remarks.append(f"Batches of {batches[0]:,} {algorithm.rows}, {why}.")
    if algorithm is SFT:
        config = config_of(base, training, kind, train_shards, val_shards, length, batches)
    else:
        config = pairs_config_of(base, algorithm, training, kind, train_shards, val_shards, length, batches)
        epochs = training.filled(algorithm).epochs
        steps = epochs * (checked.rows // batches[0])
        remarks.append(f"Steps: {steps:,}, of {batches[0]:,} pairs each; epochs: {epochs:,}. No limit ends it before.")
    if checkout is None:
        remarks.append(f"Put {path.name} into the folder examples/ of NeMo RL, where {base} is beside it.")
    text = yaml.dump(config, Dumper=_dumper(), sort_keys=False, allow_unicode=True, width=1000)
    if yaml.safe_load(text) != config:
        raise AssertionError("the config does not survive being written, please report this")
    with written_whole(path) as part, rewrite(part) as file:
        file.write(text.encode())
    shards = [*train_shards, *val_shards]
    return Written(str(path), config, remarks, commands_of(path, training, checkout, shards, checked.rows, algorithm))


def _dumper() -> Any:
    """Quote what YAML readers differ about: PyYAML takes `1e5` for text, and the one of NeMo RL for a number."""

    class Dumper(yaml.SafeDumper):
        pass

    def text(dumper: Any, value: str) -> Any:
        style = None if value[:1].isalpha() or value.startswith(("/", "$")) else '"'
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)

    Dumper.add_representer(str, text)
    return Dumper


def _plain(paths: Sequence[str | os.PathLike[str]]) -> list[Shard]:
    """Find files of rows that NeMo RL can open, by their absolute paths."""
    found, _ = find_shards(paths)
    if remote := [shard.path for shard in found if shard.is_stored]:
        raise UsageError(f"{remote[0]} is an object, and NeMo RL reads files; copy it first")
    shards = [msgspec.structs.replace(shard, path=os.path.abspath(shard.path)) for shard in found]
    for shard in shards:
        if shard.compression == "parquet":
            raise UsageError(f"{shard.path} is Parquet, and NeMo RL reads JSON lines; convert with --for nemo-rl")
        if shard.compression:
            raise UsageError(f"{shard.path} is compressed, and NeMo RL reads plain files; decompress it")
        if not shard.nbytes:
            raise UsageError(
                f"{shard.path} is empty, and NeMo RL stops at a file without rows; leave it out, or convert with a "
                "larger share for it"
            )
        check_name(shard.path)
        # Its name for a dataset: the last two parts of the path, up to the first dot.
        if not "-".join(shard.path.split("/")[-2:]).split(".")[0]:
            raise UsageError(f"{shard.path} is in a folder that begins with a dot, at which NeMo RL stops; move it")
    return shards


def _check_splits(folder: Path, files: set[str]) -> None:
    """Make sure that a folder to learn from does not hold the rows that a run set aside for something else."""
    for path in sorted(folder.glob("*.report.json")) if folder.is_dir() else []:
        try:
            splits = msgspec.json.decode(read_file(path), type=Report).splits
        except (OSError, msgspec.DecodeError, UnicodeDecodeError):
            continue
        for split in splits[1:]:
            aside = os.path.realpath(folder / split.name)
            if any(file == aside or file.startswith(f"{aside}/") for file in files):
                raise UsageError(f"{aside} is a split that was set aside; name the files to train on, not {folder}")


def _base_of(checkout: str | os.PathLike[str] | None, algorithm: Algorithm) -> str:
    if checkout is None:
        return os.path.relpath(algorithm.base, "examples")  # from a file in that folder
    base = Path(os.path.abspath(checkout), algorithm.base)
    if not base.is_file():
        raise UsageError(f"{checkout} is no checkout of NeMo RL: it has no {algorithm.base}")
    check_name(str(base))
    return str(base)


def _check_output(path: Path) -> None:
    """Make sure that nothing is overwritten but a config that replaces the base's data, as ours do."""
    if path.is_dir():
        raise UsageError(f"{path} is a folder; name a file")
    if not path.exists():
        return
    if not path.is_file():
        raise UsageError(f"cannot write to {path}: it is not a regular file")
    try:
        found = yaml.safe_load(read_file(path))
        ours = found["data"]["_override_"] is True
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from None
    except (yaml.YAMLError, LookupError, TypeError, ValueError, RecursionError):
        ours = False
    if not ours:
        raise UsageError(f"{path} is no config that fastsft wrote, and would be overwritten; choose another output")


# At one such row, or file, NeMo RL's whole load stops; it renders every row, with every beginning, while it loads.
_STOPPING = (
    "bad_json", "blank_line", "not_a_row", "mixed_rows", "no_rows", "last_role", "template_stops", "string_tools",
)  # fmt: skip
_STOPPING_PAIRS = ("bad_json", "not_a_row", "mixed_rows", "no_rows", "bad_pair", "tie", "template_stops")


def _checked(
    shards: Sequence[Shard],
    *,
    template: str | None,
    render_seconds: float,
    training: Training,
    algorithm: Algorithm,
    jobs: int | None,
    on_progress: Callable[[Progress], None] | None,
    remarks: list[str],
    of: str = "",
) -> CheckReport:
    """Check files of rows, and remark what was found.

    Raises:
        UsageError: NeMo RL could not load them, or would train without their images.
    """
    paths = [shard.path for shard in shards]
    most = training.sequence_length
    if most is not None and algorithm is SFT:
        most = most - 1 or None  # a row of just that length gets no loss, and a pair does
    counts = template is not None and renderer_at(template, render_seconds).counts_tokens
    checked = check_rows(
        paths,
        template=template,
        max_tokens=most if counts else None,
        render_seconds=render_seconds,
        placement=Placement(jobs=jobs),
        on_progress=on_progress,
    )
    found = {one.kind: one for one in (*checked.findings, *checked.notes)}
    for kind in _STOPPING if algorithm is SFT else _STOPPING_PAIRS:
        if kind in found:
            where = f"{found[kind].examples[0].file}:{found[kind].examples[0].line}"
            detail = found[kind].examples[0].detail
            told = f"{where}: {detail}" if detail else where
            raise UsageError(f"NeMo RL would stop at these rows: {kind} ({told})", found[kind].fix)
    if media := found.get("media_parts"):
        raise UsageError(
            f"NeMo RL would train without the images, sounds or files of {media.rows:,} {algorithm.rows} {of}"
            f"({media.examples[0].detail}); convert the rollouts again: with --for nemo-rl for a model that reads "
            "them, else with --format chat --trainable, which leaves such rows out"
        )
    if "parts" in found and not training.images and not reads_images(training.model):
        raise UsageError(
            f"{found['parts'].rows:,} rows {of}have images, sounds or files, and {training.model} looks like a model "
            "of text; say --images if it reads them, or convert with --format chat --trainable, which leaves such "
            "rows out"
        )
    if checked.findings:
        listed = ", ".join(f"{one.kind} {one.rows:,}" for one in checked.findings if one.kind != "too_long")
        if listed:
            remarks.append(
                f"These {algorithm.rows} {of}may not train well ({listed}); fastsft check says where and why."
            )
    remarks += told_of_pairs(checked, of) if algorithm is not SFT else []
    if lost := found.get("reasoning_lost"):
        remarks.append(f"{lost.rows:,} rows {of}lose reasoning in this template: it renders the last turn's alone.")
    return checked


def _tokens_in(checked: CheckReport) -> dict[str, int]:
    """Return the quantiles of the rows' lengths in tokens, counted or estimated."""
    if "tokens" in checked.lengths:
        return checked.lengths["tokens"]
    nbytes_of = checked.lengths.get("side") or checked.lengths["nbytes"]
    return {part: -(-nbytes // _BYTES_PER_TOKEN) for part, nbytes in nbytes_of.items()}


def _length_for(checked: CheckReport) -> int:
    """Return the power of two that 99 % of the rows fit in; NeMo RL gives a row of just that length no loss."""
    return max(_SHORTEST, 1 << _tokens_in(checked)["0.99"].bit_length())


def _told_of_length(length: int, checked: CheckReport, algorithm: Algorithm) -> list[str]:
    lengths, rows_of = _tokens_in(checked), algorithm.rows
    each = "rows" if algorithm is SFT else "longer sides, behind their context,"
    how = (
        "" if "tokens" in checked.lengths else f", at {_BYTES_PER_TOKEN} bytes a token (--template FOLDER counts them)"
    )
    told = [
        f"Sequence length {length:,}: half of the {each} have at most {lengths['0.5']:,} tokens, 99 % at most "
        f"{lengths['0.99']:,}, the longest {lengths['1.0']:,}{how}."
    ]
    if lengths["1.0"] >= length + (algorithm is not SFT):
        rows = _rows_too_long(length, checked)
        what = f"{rows:,} {rows_of} that are longer fill" if rows else f"Longer {rows_of} fill"
        how = "; convert --max-tokens --template leaves them out" if algorithm is SFT else ""
        told.append(f"{what} a place in the batch and teach nothing{how}.")
    return told


def _rows_too_long(length: int, checked: CheckReport) -> int | None:
    """Count the rows of `length` tokens and more; None where they were not counted."""
    found = next((one.rows for one in checked.findings if one.kind == "too_long"), None)
    return checked.at_least.get(length) if found is None else found


def _kind_of(shard: Shard) -> str:
    """Look at the first row of a file, and tell its kind: a `conversation`, a `pair`, or a format of preferences."""
    for lines in lines_in(ByteRange(shard, 0, min(shard.nbytes, 1)), nbytes=1, max_line=1 << 40):
        line, _, _ = lines.data.partition(b"\n")
        with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            if kind := kind_of_row(_any.decode(line)):
                return kind
    raise UsageError(f"{shard.path} does not begin with a row; fastsft convert makes rows of rollouts")
