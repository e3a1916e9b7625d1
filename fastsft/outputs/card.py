"""The dataset card that lies beside shards: README.md as the Hugging Face hub and `datasets` read it."""

from __future__ import annotations

import html
import os
import re
from collections.abc import Sequence
from pathlib import Path

import msgspec
import yaml

from fastsft.escape import escaped
from fastsft.options import Options
from fastsft.report import OutputShard, Report

# The hub's sizes: below how many rows each.
_SIZES = (
    (10**3, "n<1K"),
    (10**4, "1K<n<10K"),
    (10**5, "10K<n<100K"),
    (10**6, "100K<n<1M"),
    (10**7, "1M<n<10M"),
    (10**8, "10M<n<100M"),
    (10**9, "100M<n<1B"),
    (10**10, "1B<n<10B"),
    (10**11, "10B<n<100B"),
    (10**12, "100B<n<1T"),
)
_LARGEST = "n>1T"
_VALIDATION = ("val", "valid", "dev", "eval")  # which the hub calls validation
_TEMPLATE = """\
---
{front}---

# Training rows from NeMo Gym rollouts

{kept:,} rows in the layout `{layout}`, which fastsft {version} made from {lines:,} rollout lines of {inputs:,} files.

```python
from datasets import load_dataset

rows = load_dataset("PATH/OR/NAME")
```

| split | rows | bytes | files |
|---|---:|---:|---:|
{splits}

## How they were chosen

Settings that differ from the defaults of `fastsft convert`:

```json
{settings}
```

| lines | reason | count |
|---|---|---:|
{fates}

`{report}` has the same counts for each input, and the SHA-256 of each file; `fastsft verify` compares them.

## Before it is shared

Say under which licence: the prompts, the environments and the model that wrote the answers each have one. The texts are
as the rollouts had them; nobody has looked for personal data in them.
"""


class CardSplit(msgspec.Struct, frozen=True):
    """One output that a card tells of: its stem or name, its folder from the card's, its files."""

    name: str
    folder: str
    files: list[OutputShard]


def card_of(report: Report, splits: Sequence[CardSplit], report_name: str) -> bytes:
    """Write the card of a run's outputs, the main one first; those outside of its folder are not among its files."""
    front = {
        "configs": [{"config_name": "default", "data_files": _data_files(splits)}],
        "size_categories": [_size_of(sum(one.rows for split in splits for one in split.files))],
        "task_categories": ["text-generation"],
        "tags": ["nemo-gym", "sft", "fastsft"],
    }
    fates = [("kept", "", report.fates.kept), ("blank", "", report.fates.blank)]
    for fate, counts in (("dropped", report.fates.dropped), ("refused", report.fates.refused)):
        fates += [(fate, f"`{reason}`", count) for reason, count in counts.items()]
    text = _TEMPLATE.format(
        front=yaml.safe_dump(front, sort_keys=False, allow_unicode=True),
        kept=report.fates.kept,
        layout=report.options["format"],
        version=report.version,
        lines=report.fates.lines,
        inputs=len(report.inputs),
        splits="\n".join(_row_of(split) for split in splits),
        settings=_settings_of(report),
        fates="\n".join(f"| {fate} | {reason} | {count:,} |" for fate, reason, count in fates if count),
        report=report_name,
    )
    return text.encode()


def _data_files(splits: Sequence[CardSplit]) -> list[dict[str, str]]:
    """Return which files each split has, by a pattern where these are shards; an empty split has none."""
    found: dict[str, dict[str, str]] = {}
    for split in splits:
        below = Path(split.folder).parts[:1] != ("..",)
        if not below or not sum(one.rows for one in split.files):
            continue
        name = re.sub(r"\W+", "_", _name_on_hub(split.name), flags=re.ASCII)
        while name in found:
            name += "_"
        pattern = re.sub(r"-\d{5,}(-of-\d{5,}\.)", r"-*\1", _glob_escaped(split.files[0].name))
        found[name] = {"split": name, "path": os.path.normpath(os.path.join(_glob_escaped(split.folder), pattern))}
    return list(found.values())


def _name_on_hub(name: str) -> str:
    return "validation" if name.lower() in _VALIDATION else name


def _glob_escaped(name: str) -> str:
    return re.sub(r"([*?[])", r"[\1]", name)


def _size_of(rows: int) -> str:
    """Return the hub's name for a number of rows.

    >>> _size_of(999), _size_of(1000), _size_of(10**12)
    ('n<1K', '1K<n<10K', 'n>1T')
    """
    return next((name for limit, name in _SIZES if rows < limit), _LARGEST)


def _row_of(split: CardSplit) -> str:
    rows, nbytes = (sum(getattr(one, what) for one in split.files) for what in ("rows", "nbytes"))
    name = html.escape(escaped(_name_on_hub(split.name))).replace("|", "&#124;").replace("`", "&#96;")
    return f"| {name} | {rows:,} | {nbytes:,} | {len(split.files):,} |"


def _settings_of(report: Report) -> str:
    """Write the settings that are not the defaults as JSON, of which no line begins with what ends a block."""
    usual = Options(format=report.options["format"]).shown()
    settings = {name: value for name, value in report.options.items() if value != usual.get(name) and name != "card"}
    if settings.get("template"):
        settings["template"] = os.path.basename(os.path.normpath(settings["template"]))
    return msgspec.json.format(msgspec.json.encode(settings), indent=2).decode()
