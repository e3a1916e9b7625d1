"""Where a run writes: the names of its files, and that they are free to be written.

Everything that can be known to stand in the way is found here, before any work.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from pathlib import Path

import msgspec

from fastsft.errors import UsageError
from fastsft.inputs.globs import is_glob, names_file
from fastsft.inputs.shards import Shard, is_same_file
from fastsft.options import Options, Split
from fastsft.report import Card, Report
from fastsft.storage.compression import SUFFIXES, check_compressor
from fastsft.storage.files import kind_of, read_file


class Target(msgspec.Struct, frozen=True):
    """Where a run writes: one file of rows, or shards in a folder; the rest lies beside them.

    Attributes:
        folder: The folder, with links resolved.
        stem: What the names of all files begin with.
        file: The name of the one file of rows; None for shards.
        compression: `gz` or `zst` where the rows are compressed.
        has_card: Whether a dataset card is written beside them.
        kind: The kind of file, `jsonl` or `parquet`.
    """

    folder: Path
    stem: str
    file: str | None
    compression: str | None = None
    has_card: bool = False
    kind: str = "jsonl"

    @property
    def suffix(self) -> str:
        """What the names of shards end with."""
        return f".{self.kind}.{self.compression}" if self.compression else f".{self.kind}"

    @property
    def report(self) -> Path:
        """The report's path. No glob for `*.jsonl` finds it, nor the refused lines."""
        return self.folder / f"{self.stem}.report.json"

    @property
    def refused(self) -> Path:
        """The path of the list of refused lines, JSON lines too."""
        return self.folder / f"{self.stem}.refused"

    @property
    def card(self) -> Path:
        """The path of the dataset card, by the name that the Hugging Face hub wants."""
        return self.folder / "README.md"

    @property
    def staging(self) -> Path:
        """The folder of a run that writes to this target."""
        return self.folder / f".{self.stem}.fastsft"

    def shard_name(self, number: int, count: int) -> str:
        """Name a shard, counted from 0."""
        return f"{self.stem}-{number:05}-of-{count:05}{self.suffix}"

    @property
    def lock(self) -> Path:
        """The path of the file that a run holds locked while it writes to this target."""
        return self.folder / f".{self.stem}.lock"

    def is_shard(self, name: str) -> bool:
        """Tell whether a file name is that of a shard with this stem."""
        return re.fullmatch(re.escape(self.stem) + r"-\d{5,}-of-\d{5,}\.(jsonl(\.gz|\.zst)?|parquet)", name) is not None


def target_of(output: str | os.PathLike[str], options: Options) -> Target:
    """Resolve the output argument: a folder (it exists, or ends in `/`) takes shards, anything else is one file.

    Raises:
        UsageError: It is neither, or the options want shards and it is a file.
    """
    text = os.fspath(output)
    if not text:
        raise UsageError("no output: the path is empty")
    if text == "-":
        raise UsageError("the output is a file or a folder, as rows are published whole; a file of that name is ./-")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UsageError(f"the name of the output is not valid UTF-8: {text!r}") from None
    if not text.endswith("/"):
        check_kind(text, options)
    elif _URL.match(text):
        check_promise(text, "", ())
    path, kind = Path(os.path.realpath(text)), _kind_of(os.path.realpath(text))
    if text.endswith("/") or kind == "folder":
        if kind not in (None, "folder"):
            raise UsageError(f"cannot write shards to {text}: it is a file")
        return Target(path, options.name, None, options.compress, kind=options.file_kind)
    if options.shards or options.shard_nbytes:
        raise UsageError(f"shards go to a folder; write the output as {text}/")
    if kind not in (None, "file"):
        raise UsageError(f"cannot write to {text}: it is not a regular file")
    if options.file_kind == "parquet":
        if path.suffix != ".parquet":
            raise UsageError(
                f"{_title(options)} reads Parquet alone; write the output as {text}.parquet, or as a folder"
            )
        return Target(path.parent, stem_of(path.name), path.name, kind="parquet")
    suffix = path.suffix[1:] if path.suffix[1:] in SUFFIXES else None
    if options.compress and options.compress != suffix:
        raise UsageError(f"rows compressed as {options.compress} go to a file that says so: {text}.{options.compress}")
    return Target(path.parent, stem_of(path.name), path.name, suffix)


def stem_of(name: str) -> str:
    """Return what the names of all files beside one file of rows begin with.

    >>> stem_of("train.jsonl.gz"), stem_of("train.parquet"), stem_of("train")
    ('train', 'train', 'train')
    """
    for suffix in SUFFIXES:
        name = name.removesuffix(f".{suffix}")
    return name.removesuffix(".jsonl").removesuffix(".parquet")


def check_kind(output: str, options: Options) -> None:
    """Make sure that the name of a file promises the kind of file that is written.

    Raises:
        UsageError: It promises another.
    """
    if options.file_kind == "parquet":
        check_promise(output, f"{_title(options)} reads .parquet", ("parquet",))
    else:
        check_promise(output, "rows are written as .jsonl, .jsonl.gz or .jsonl.zst", ("jsonl", *SUFFIXES))


def _title(options: Options) -> str:
    return options.target.title if options.target is not None else "the trainer"


_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
# Endings that promise a kind of file, or of compression.
_PROMISES = frozenset(
    "parquet pq arrow feather ipc avro orc csv tsv xlsx json jsonl yaml yml xml html pkl pickle npy npz pt "
    "safetensors h5 hdf5 db sqlite duckdb lance tar gz zst bz2 xz lz4 lzma zip 7z br snappy sz z tgz".split()
)


def check_promise(output: str, what: str, kept: Sequence[str]) -> None:
    """Make sure that an output does not promise what is not written: a place elsewhere, or another kind of file.

    Args:
        output: The path as it was given.
        what: What can be written, as a sentence.
        kept: The endings of it.

    Raises:
        UsageError: It does.
    """
    if _URL.match(output):
        raise UsageError(f"cannot write to {output}: it is an address, and files are written; name a path")
    endings = os.path.basename(output).casefold().split(".")[1:]
    said = endings[-2:] if endings[-1:] and endings[-1] in SUFFIXES else endings[-1:]
    if broken := [ending for ending in said if ending in _PROMISES and ending not in kept]:
        raise UsageError(f"cannot write {output}: .{broken[0]} promises another kind of file; {what}")


def targets_of(output: str | os.PathLike[str], splits: Sequence[Split], options: Options) -> list[Target]:
    """Resolve the main output and those of the splits, all of them apart.

    A split in a folder is named as the folder: `sft/val/` holds `val-00000-of-00001.jsonl`.

    Raises:
        UsageError: Two are the same, or one cannot be written, or the shares leave nothing.
    """
    targets = [_with_card(target_of(output, options), output) if options.card else target_of(output, options)]
    for split in splits:
        if not 0 < split.share < 1:
            raise UsageError(f"the share of a split lies between 0 and 1, not {split.share}")
        if split.output.endswith("/") or _kind_of(split.output) == "folder":
            name = os.path.basename(os.path.realpath(split.output))
            targets.append(target_of(split.output, msgspec.structs.replace(options, name=name)))
        else:
            one_file = msgspec.structs.replace(options, shards=None, shard_nbytes=None, compress=None)
            targets.append(target_of(split.output, one_file))
    if sum(split.share for split in splits) >= 1:
        raise UsageError("the splits take all tasks, and leave none for the main output")
    if len({(target.folder, target.stem) for target in targets}) < len(targets):
        raise UsageError("two outputs have the same folder and name; choose others")
    return targets


def _with_card(target: Target, output: str | os.PathLike[str]) -> Target:
    if target.file is not None:
        raise UsageError(f"a card lies beside shards in a folder; write the output as {os.fspath(output)}/")
    return msgspec.structs.replace(target, has_card=True)


def splits_left(targets: Sequence[Target]) -> list[str]:
    """Say which splits the run before wrote that this one does not: they stay, and may share tasks with its rows."""
    before = report_before(targets[0])
    now = {os.path.realpath(target.folder / (target.file or "")) for target in targets}
    paths = [os.path.realpath(targets[0].folder / split.name) for split in before.splits[1:]] if before else []
    return [
        f"{path} is a split of the run before and stays: its tasks may be among the rows of this run"
        for path in paths
        if path not in now and os.path.exists(path)
    ]


def check_target(
    target: Target,
    shards: Sequence[Shard],
    inputs: Sequence[str] = (),
    index: str | os.PathLike[str] | None = None,
) -> set[str]:
    """Make sure that this run will touch no input, nor the index that it reads, and mix with no other output.

    Returns:
        The names in the folder that an earlier run wrote and this one replaces or removes.

    Raises:
        UsageError: It would.
    """
    if target.compression:
        check_compressor(target.compression)  # says now which extra is missing
    for argument in inputs:
        if kind_of(argument) == "folder" and os.path.realpath(argument) == str(target.folder):
            problem = "is an input folder, and rows in it would be taken for rollouts the next time"
            raise UsageError(f"{argument} {problem}; choose another output")
        if is_glob(argument) and names_file(argument, str(target.folder / (target.file or target.shard_name(0, 1)))):
            problem = "names the output, too, and rows would be taken for rollouts the next time"
            raise UsageError(f"{argument} {problem}; choose another output")
    if os.path.lexists(target.staging) and (target.staging.is_symlink() or not target.staging.is_dir()):
        raise UsageError(f"{target.staging} is in the way: it is no folder of fastsft's")
    for shard in shards:
        if target.staging in Path(os.path.realpath(shard.path)).parents:
            raise UsageError(f"{shard.path} is an input and lies in {target.staging}, which is a run's own; move it")
    names = _names(target.folder)
    earlier = _earlier_outputs(target)
    present = {name for name in names if target.is_shard(name)} if target.file is None else set()
    check_card(target, earlier)
    finals = {target.report.name, target.refused.name, *earlier, *present, *filter(None, [target.file])}
    finals |= {target.card.name} if target.has_card else set()
    for name in finals:
        path = target.folder / name
        for source in (*(shard.path for shard in shards), *([os.fspath(index)] if index is not None else [])):
            if is_same_file(path, source):
                raise UsageError(f"{source} is an input and would be overwritten; choose another output")
        if os.path.lexists(path) and not path.is_file():
            raise UsageError(f"{path} is in the way: it is not a regular file")
    if unknown := sorted(present - earlier):
        raise UsageError(
            f"{target.folder} holds {unknown[0]}, which no report there names, and new shards would mix with it; "
            "remove it, or choose another folder or --name"
        )
    return earlier


def check_card(target: Target, earlier: set[str]) -> None:
    """Make sure that a card takes the place of nothing, or of one of `earlier`, the files that an earlier run wrote.

    Raises:
        UsageError: It would not.
    """
    if target.has_card and target.card.name not in earlier and os.path.lexists(target.card):
        raise UsageError(f"{target.card} is there, and not as an earlier run wrote it; move it, or leave out --card")


def report_before(target: Target) -> Report | None:
    """Read what the run before said of the same target; None where there is no such report."""
    try:
        return msgspec.json.decode(read_file(target.report), type=Report)
    except (FileNotFoundError, NotADirectoryError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    except OSError as error:
        raise UsageError(f"cannot read {target.report}: {error.strerror}") from None


def _earlier_outputs(target: Target) -> set[str]:
    report = report_before(target)
    if report is None:
        return set()
    names = {output.name for output in report.outputs}
    if others := sorted(
        name for name in names if not (name == target.file or (not target.file and target.is_shard(name)))
    ):
        raise UsageError(f"{target.report} belongs to {others[0]}; choose another output or --name")
    if report.refused_lines == target.refused.name:
        names.add(target.refused.name)
    if report.card is not None and _is_as_written(target.card, report.card):
        names.add(target.card.name)
    return names


def _is_as_written(path: Path, card: Card) -> bool:
    """Tell whether a card is what a run wrote there, and nobody has edited it."""
    try:
        data = read_file(path) if path.stat().st_size == card.nbytes else b""
    except OSError:
        return False
    return hashlib.sha256(data).hexdigest() == card.sha256


def _kind_of(path: str) -> str | None:
    try:
        return kind_of(path)
    except OSError as error:
        raise UsageError(f"cannot write to {path}: {error.strerror}") from None


def _names(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise UsageError(f"cannot write to {folder}: {error.strerror}") from None
