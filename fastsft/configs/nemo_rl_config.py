"""The config with which NeMo RL trains on rows: on the right data, with the model's own template, and to the end.

What its config loader does with a plausible file, and what is done about it here, each measured or read in
NeMo RL (main, August 2026; `nemo_rl/utils/config.py`, `examples/configs/sft.yaml`, `examples/run_sft.py`):

- `defaults` is a path beside the file: an absolute one, or one that fits where the user is told to put the file.
- The base's `data` names squad: the whole block is replaced (`_override_`), its `split` with it.
- The base's template has three roles and drops tools: `chat_template: default` takes the model's own.
- The metric is `val:val_loss`, and without validation none, as there is nothing to measure.
- With a list of datasets the base's logger names, which ask for the one dataset's name, break: they are all replaced.
- A data path is absolute; one in a folder that begins with a dot stops the load, so it is refused.
- The base stops after 60 steps: `max_num_steps` is out of the way. Fewer rows than a batch make no step: it shrinks.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fastsft.configs.training import SFT, Algorithm, Training
from fastsft.errors import UsageError
from fastsft.inputs.shards import Shard
from fastsft.storage.files import read_file

DEFAULT_BATCH = 128  # rows a step
_NO_LIMIT = 1_000_000_000  # steps
_RAY_SUB_GPUS = 8  # that ray.sub takes a node to have, unless GPUS_PER_NODE says another number


_NAMES_VISION = re.compile(
    r"(?:^|[-_/.\d])(?:vl|vlm|vision|omni|llava|pixtral|internvl|idefics|smolvlm|paligemma|molmo|multimodal)",
    re.IGNORECASE,
)
_CONFIGURES_VISION = (b'"vision_config"', b'"image_token_id"', b'"vision_tower"', b'"mm_vision_tower"')


def reads_images(model: str) -> bool:
    """Tell whether a model says that it reads images: by its folder's config, else by its name."""
    config = Path(model, "config.json")
    if config.is_file():
        said = read_file(config)
        return any(key in said for key in _CONFIGURES_VISION)
    return _NAMES_VISION.search(model) is not None


def model_of(training: Training) -> str:
    """Return the model's name, or its folder, absolute, as training runs in NeMo RL's checkout."""
    return os.path.abspath(training.model) if os.path.isdir(training.model) else training.model


def config_of(
    base: str,
    training: Training,
    kind: str,
    train: Sequence[Shard],
    val: Sequence[Shard],
    length: int,
    batches: tuple[int, int],
) -> dict[str, Any]:
    """Return the config: `kind` of rows, `length` of a sequence in tokens, rows a step and at once on a GPU."""
    data = {
        "_override_": True,
        "max_input_seq_length": "${policy.max_total_sequence_length}",
        "add_bos": True,
        "add_eos": True,
        "add_generation_prompt": False,
        "shuffle": True,
        "num_workers": 1,
        "train": _datasets(kind, train),
        "validation": _datasets(kind, val),
        "default": {"prompt_file": None, "system_prompt_file": None, "processor": "sft_processor"},
    }
    return {"defaults": base, "data": data, **common_of(SFT, training, length, batches, validates=bool(val))}


def common_of(
    algorithm: Algorithm, training: Training, length: int, batches: tuple[int, int], *, validates: bool
) -> dict[str, Any]:
    """Return what the configs of all algorithms have beside the data."""
    batch, micro_batch = batches
    own = training.filled(algorithm)
    return {
        "policy": {
            "model_name": model_of(training),
            "tokenizer": {"name": "${policy.model_name}", "chat_template": "default", "chat_template_kwargs": None},
            "max_total_sequence_length": length,
            "train_global_batch_size": batch,
            "train_micro_batch_size": micro_batch,
        },
        algorithm.name: {
            "max_num_epochs": own.epochs,
            "max_num_steps": _NO_LIMIT,
            "val_period": training.val_period if validates else 0,
            "val_at_start": validates,
            "val_at_end": validates,
        },
        "checkpointing": {
            "enabled": True,
            "checkpoint_dir": own.checkpoint_dir,
            "metric_name": algorithm.metric if validates else None,
            "higher_is_better": False,
            "save_period": training.val_period,
        },
        "logger": {
            "wandb_enabled": training.wandb,
            "wandb": {"project": own.project, "name": own.run},
            "swanlab": {"project": own.project, "name": own.run},
            "tensorboard": {"log_dir": f"tb_logs-{own.run}"},
            "mlflow": {"experiment_name": own.project, "run_name": own.run},
        },
        "cluster": {"gpus_per_node": training.gpus, "num_nodes": training.nodes},
    }


def _datasets(kind: str, shards: Sequence[Shard]) -> list[dict[str, Any]] | dict[str, Any] | None:
    """Return a block for each file; a loader opens one."""
    if kind == "conversation":
        keys: dict[str, Any] = {
            "dataset_name": "openai_format",
            "chat_key": "messages",
            "tool_key": "tools",
            "system_key": None,
            "system_prompt": None,
            "use_preserving_dataset": True,  # else arguments and schemas are filled up with null
        }
    else:
        keys = {"dataset_name": "ResponseDataset", "input_key": "input", "output_key": "output"}
    blocks = [{"data_path": shard.path, **keys} for shard in shards]
    return blocks[0] if len(blocks) == 1 else blocks or None


def batches_of(training: Training, rows: int, *, gpus: int, nodes: int, algorithm: Algorithm = SFT) -> tuple[int, int]:
    """Return rows a step and rows at once on a GPU, which NeMo RL wants to divide over all GPUs without a rest.

    Of pairs it counts pairs, and doubles both itself.

    Raises:
        UsageError: There are not so many rows, or what was asked for does not divide.
    """
    workers, what = gpus * nodes, algorithm.rows
    batch = training.global_batch or DEFAULT_BATCH
    if rows < batch:
        if training.global_batch:
            problem = f"a batch of {batch:,} {what} is more than there are ({rows:,})"
            raise UsageError(f"{problem}, and NeMo RL would make no step")
        batch = rows
    each = batch // workers
    if not each:
        raise UsageError(f"{workers} GPUs take a batch of {workers} {what} at least, and it would have {batch:,}")
    if training.global_batch and batch % workers:
        raise UsageError(f"a batch of {batch:,} {what} does not divide over {workers} GPUs")
    if not training.global_batch:
        each = 1 << (each.bit_length() - 1)
    micro_batch = min(training.filled(algorithm).micro_batch, each)
    if each % micro_batch:
        raise UsageError(f"{each:,} {what} of a batch on each GPU do not divide by the micro batch of {micro_batch:,}")
    return each * workers, micro_batch


def commands_of(
    path: Path,
    training: Training,
    checkout: str | os.PathLike[str] | None,
    shards: Sequence[Shard],
    rows: int,
    algorithm: Algorithm = SFT,
) -> list[tuple[str, str]]:
    """Return the commands that train with the config at `path`, each with what it is for."""
    where = shlex.quote(os.path.abspath(checkout)) if checkout is not None else "YOUR_NEMO_RL"
    config = shlex.quote(str(path) if checkout is not None else f"examples/{path.name}")
    several, nodes = training.gpus if training.gpus > 1 else 8, training.nodes if training.nodes > 1 else 2
    written = batches_of(training, rows, gpus=training.gpus, nodes=training.nodes, algorithm=algorithm)

    def command(gpus: int, nodes: int) -> str | None:
        try:
            batch, micro_batch = batches_of(training, rows, gpus=gpus, nodes=nodes, algorithm=algorithm)
        except UsageError:
            return None  # too few rows for so many GPUs
        changed = [f"cluster.gpus_per_node={gpus}", f"cluster.num_nodes={nodes}"]
        if (batch, micro_batch) != written:
            changed.append(f"policy.train_global_batch_size={batch}")
            changed.append(f"policy.train_micro_batch_size={micro_batch}")
        return f"uv run examples/run_{algorithm.name}.py --config {config} {' '.join(changed)}"

    commands = [("In NeMo RL's checkout", f"cd {where}")]
    commands += [("One GPU", one)] if (one := command(1, 1)) else []
    commands += [(f"{several} GPUs", more)] if (more := command(several, 1)) else []
    if slurm := command(several, nodes):
        checkpoint_dir = training.filled(algorithm).checkpoint_dir
        named = (model_of(training), os.path.expanduser(checkpoint_dir))
        folders = sorted(
            {str(path.parent), *(os.path.dirname(shard.path) for shard in shards), *filter(os.path.isabs, named)}
        )
        mounts = ",".join(["$PWD:$PWD", *(_in_double_quotes(f"{folder}:{folder}") for folder in folders)])
        asked = f"--nodes={nodes} --gres=gpu:{several} --time=4:0:0 --account=YOUR_ACCOUNT --partition=YOUR_PARTITION"
        made = shlex.quote(checkpoint_dir)
        lines = [
            *([f"mkdir -p {made} && "] if os.path.isabs(checkpoint_dir) else []),
            f'COMMAND="{_in_double_quotes(slurm)}"',
            f'CONTAINER=YOUR_CONTAINER MOUNTS="{mounts}"',
            *([f"GPUS_PER_NODE={several}"] if several != _RAY_SUB_GPUS else []),
            f"sbatch {asked} ray.sub",
        ]
        commands.append((f"Slurm, {nodes} nodes of {several} GPUs", " \\\n".join(lines)))
    return commands


def _in_double_quotes(text: str) -> str:
    return re.sub(r'([\\"$`])', r"\\\1", text)
