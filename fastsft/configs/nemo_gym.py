"""The block of NeMo RL's config that reads task rows, for GRPO and on-policy distillation.

As `examples/nemo_gym/*.yaml` of NeMo RL (7ea279a) have it: `NemoGymDataset` opens a plain file and hands each line to
the environment, which makes the prompt itself, so no length limits it; an agent's name is looked up for every line.
"""

from __future__ import annotations

import os
from typing import Any

import yaml

from fastsft.report import Report
from fastsft.storage.urls import is_remote


def data_block_of(report: Report) -> str | None:
    """Return the block as YAML, with the first split for validation; None where NeMo RL cannot open the rows."""
    if is_remote(report.folder) or not report.outputs:
        return None
    names = [split.name for split in report.splits]
    train = [os.path.join(report.folder, output.name) for output in report.outputs]
    paths = [os.path.normpath(os.path.join(report.folder, name)) for name in names[1:2]]
    data = {
        "max_input_seq_length": None,
        "shuffle": True,
        "num_workers": 0,
        "use_multiple_dataloader": False,
        "train": _datasets(train),
        "validation": _datasets(paths),
        "default": {
            "dataset_name": "NemoGymDataset",
            "env_name": "nemo_gym",
            "prompt_file": None,
            "system_prompt_file": None,
            "processor": "nemo_gym_data_processor",
        },
    }
    return yaml.safe_dump({"data": data}, sort_keys=False, allow_unicode=True, width=1000).rstrip()


def _datasets(paths: list[str]) -> list[dict[str, Any]] | dict[str, Any] | None:
    blocks = [{"data_path": path} for path in paths]
    return blocks[0] if len(blocks) == 1 else blocks or None
