"""An output in a store: where its rows are made first, and that nothing stands in the way at its URL.

WORK/fastsft-USER-DIGEST/   of the URL of the main output, so that the same command finds what it did
out/                    what is in the bucket, as folders and files: all outputs of the run
upload.json, up-*       what is planned, and what is up (`upload.py`)
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from fastsft.errors import UsageError, errors_naming
from fastsft.inputs.globs import matches
from fastsft.options import Options, Split
from fastsft.outputs.target import Target, check_kind
from fastsft.report import Card, Report
from fastsft.storage.files import make_folder
from fastsft.storage.stores import open_store, read_all
from fastsft.storage.urls import Entry, is_remote, root_and_key


class Place(msgspec.Struct, frozen=True):
    """Where the outputs of a run are made, and where they go.

    Attributes:
        work: The folder in which they are made.
        root: The bucket, as a URL.
        output: The main output in the work folder.
        splits: The others there.
    """

    work: Path
    root: str
    output: str
    splits: list[Split]

    @property
    def out(self) -> Path:
        """What stands for the bucket."""
        return self.work / "out"

    def url_of(self, folder: Path) -> str:
        """Return the URL of a folder of the work folder, with a slash at its end."""
        below = os.path.relpath(folder, self.out)
        start = self.root if self.root.endswith("/") else f"{self.root}/"
        return start if below == "." else f"{start}{below}/"


def place_of(output: str, splits: Sequence[Split], options: Options) -> Place:
    """Find the place of a run's outputs.

    Raises:
        UsageError: They are not all in one bucket, or one cannot be written.
    """
    root = root_and_key(output)[0] if is_remote(output) else ""
    for split in splits:
        if not root or not is_remote(split.output) or root_and_key(split.output)[0] != root:
            raise UsageError(f"{split.output} and {output} lie apart: all outputs of a run lie in one bucket, or none")
    digest = hashlib.sha256(output.encode()).hexdigest()[:16]
    parent = os.path.realpath(options.work or tempfile.gettempdir())
    folder = Path(parent, f"fastsft-{os.getuid()}-{digest}")
    local = [_local(folder / "out", url, options) for url in (output, *(split.output for split in splits))]
    shares = [split.share for split in splits]
    return Place(folder, root, local[0], [Split(*one) for one in zip(local[1:], shares, strict=True)])


def make_work(folder: Path) -> None:
    """Make a work folder, which nobody else may write to.

    Raises:
        UsageError: Something else has its name.
        FailedRun: It cannot be made.
    """
    with errors_naming(folder, "nothing was written"):
        make_folder(folder, exist_ok=True, parents=True, mode=0o700)
        found = folder.lstat()
    if folder.is_symlink() or found.st_uid != os.getuid():
        raise UsageError(f"{folder} is in the way: it is another's; choose another folder with --work")


def _local(out: Path, url: str, options: Options) -> str:
    """Return the path that stands for a URL; of a folder, which ends in a slash or holds objects, with a slash."""
    _, key = root_and_key(url)
    if set(key.rstrip("/").split("/")) & {"..", "."} or "//" in key:
        raise UsageError(f"cannot write to {url}: a path in a store has no empty parts and no dots alone")
    if key and not key.endswith("/"):
        store, _ = open_store(url)
        if store.list(key, deep=False):
            key += "/"
        else:
            check_kind(key, options)
    return f"{out}/{key}"


class Found(msgspec.Struct):
    """What is at the URL of an output: the version of its report, empty for none, and the files of that."""

    report: str
    files: list[str]


def check_place(target: Target, url: str, inputs: Sequence[str], known: Sequence[str]) -> Found:
    """Make sure that a run will touch no input, and mix with no other output; `known` are files of earlier attempts.

    Raises:
        UsageError: It would.
    """
    store, folder = open_store(url)
    there = {entry.url.removeprefix(url): entry for entry in store.list(folder.rstrip("/"), deep=False)}
    report, etag = None, ""
    if entry := there.get(target.report.name):
        etag = entry.etag
        report = _decoded(read_all(entry))
    earlier = set(_names_in(report, target, url)) if report else set()
    if report and report.card and _is_as_written(there.get(report.card.name), report.card):
        earlier.add(target.card.name)
    if target.has_card and target.card.name in there.keys() - earlier - {one.removeprefix(url) for one in known}:
        raise UsageError(f"{url}{target.card.name} is there, and not as an earlier run wrote it; leave out --card")
    present = {name for name in there if target.is_shard(name)} if target.file is None else set()
    finals = {target.report.name, target.refused.name, *earlier, *present, *filter(None, [target.file])}
    finals.add(target.file or target.shard_name(0, 1))
    for argument in filter(is_remote, inputs):
        if argument.rstrip("/") == url.rstrip("/"):
            problem = "is an input folder, and rows in it would be taken for rollouts the next time"
            raise UsageError(f"{argument} {problem}; choose another output")
        for name in finals:
            if argument == url + name or _is_named(url + name, argument):
                raise UsageError(f"{argument} names an input that would be overwritten; choose another output")
    known_names = {one.removeprefix(url) for one in known}
    if unknown := sorted(present - earlier - known_names):
        raise UsageError(
            f"{url} holds {unknown[0]}, which no report there names, and new shards would mix with it; "
            "remove it, or choose another folder or --name"
        )
    return Found(etag, [url + name for name in sorted(earlier)])


def _is_as_written(entry: Entry | None, card: Card) -> bool:
    """Tell whether a card is what a run put there, and nobody has edited it."""
    if entry is None or entry.nbytes != card.nbytes:
        return False
    return hashlib.sha256(read_all(entry)).hexdigest() == card.sha256


def _decoded(data: bytes) -> Report | None:
    try:
        return msgspec.json.decode(data, type=Report)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _names_in(report: Report, target: Target, url: str) -> Iterator[str]:
    for output in report.outputs:
        if not (output.name == target.file or (not target.file and target.is_shard(output.name))):
            raise UsageError(f"{url}{target.report.name} belongs to {output.name}; choose another output or --name")
        yield output.name
    if report.refused_lines == target.refused.name:
        yield target.refused.name


def _is_named(url: str, pattern: str) -> bool:
    root, key = root_and_key(url)
    other, glob = root_and_key(pattern)
    return root == other and matches(key.split("/"), glob.split("/"))


def is_complete(report: Report, folder: Path) -> bool:
    """Tell whether the files of a report are in a folder, by their sizes."""
    try:
        return all(os.stat(folder / output.name).st_size == output.nbytes for output in report.outputs)
    except OSError:
        return False
