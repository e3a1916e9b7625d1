"""The config with which NeMo RL trains on pairs: DPO, or a reward model.

What its loader does with pairs, read in NeMo RL (7ea279a; `setup_preference_data` in `nemo_rl/data/utils.py`,
`preference_preprocessor`, `preference_collate_fn`, `nemo_rl/algorithms/dpo.py` and `rm.py`):

- `data.train` and `data.validation` are one mapping each: a list stops the load. So there is one file for each.
- The base names HelpSteer3: the whole block is replaced, its `split` with it.
- `rm.yaml` has a template of Llama 3 without tools: `chat_template: default` takes the model's own.
- Two completions, and ranks that differ, or the load stops. Loss is on the last message of each; no template is given
  the tools.
- A pair of which one side is longer than the sequence keeps its place in the batch and gets no loss.
- A batch counts pairs; packing and dynamic batches are refused, as they would take pairs apart.
- The base of DPO stops after 150 steps: the limit is out of the way.
- The metric is that of the one validation set, `val:validation-default_loss`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastsft.checks.preferences import BINARY, NEMO_RL, PREFERENCES
from fastsft.checks.report import CheckReport
from fastsft.configs.nemo_rl_config import common_of
from fastsft.configs.training import DPO, REWARD_MODEL, SFT, Algorithm, Training
from fastsft.errors import UsageError
from fastsft.inputs.shards import Shard


def algorithm_for(kind: str, *, reward_model: bool) -> Algorithm:
    """Return the algorithm that trains on rows of a kind.

    Raises:
        UsageError: NeMo RL reads no such rows, or none for a reward model.
    """
    if kind in (NEMO_RL, BINARY):
        return REWARD_MODEL if reward_model else DPO
    if kind in PREFERENCES:
        raise UsageError(f"NeMo RL reads no pairs of the format {kind}; make them with fastsft pairs --format nemo-rl")
    if reward_model:
        raise UsageError("a reward model learns from pairs, and these rows are none; fastsft pairs makes some")
    return SFT


def check_files(train: Sequence[Shard], val: Sequence[Shard]) -> None:
    """Make sure that there is one file of pairs to learn from, and one at most to validate with.

    Raises:
        UsageError: There are more.
    """
    for files, what in ((train, "to learn from"), (val, "for validation")):
        if len(files) > 1:
            raise UsageError(
                f"NeMo RL opens one file of pairs {what}, and these are {len(files)}; write one: fastsft pairs "
                "--output FILE.jsonl"
            )


def pairs_config_of(
    base: str,
    algorithm: Algorithm,
    training: Training,
    kind: str,
    train: Sequence[Shard],
    val: Sequence[Shard],
    length: int,
    batches: tuple[int, int],
) -> dict[str, Any]:
    """Return the config: `kind` of pairs, `length` of the longer side in tokens, pairs a step and at once on a GPU."""
    data = {
        "_override_": True,
        "max_input_seq_length": "${policy.max_total_sequence_length}",
        "shuffle": True,
        "num_workers": 1,
        "train": _dataset(kind, train[0]),
        "validation": _dataset(kind, val[0]) if val else None,
        "default": {"prompt_file": None, "system_prompt_file": None},
    }
    common = common_of(algorithm, training, length, batches, validates=bool(val))
    common["policy"] |= {"sequence_packing": {"enabled": False}, "dynamic_batching": {"enabled": False}}
    return {"defaults": base, "data": data, **common}


def _dataset(kind: str, shard: Shard) -> dict[str, Any]:
    block: dict[str, Any] = {"data_path": shard.path, "dataset_name": "PreferenceDataset"}
    if kind == BINARY:
        keys = {"prompt_key": "prompt", "chosen_key": "chosen", "rejected_key": "rejected"}
        block |= {"dataset_name": "BinaryPreferenceDataset", **keys}
    return block


def told_of_pairs(checked: CheckReport, of: str) -> list[str]:
    """Say in sentences what a person should know of pairs before training on them."""
    found = {one.kind: one for one in checked.notes}
    told = []
    if dropped := found.get("tools_dropped"):
        told.append(
            f"{dropped.rows:,} pairs {of}have tools or calls, and NeMo RL shows no template the tools: the model "
            "learns to call what it does not see. TRL shows them: fastsft pairs --format trl."
        )
    if objects := found.get("object_arguments"):
        told.append(
            f"{objects.rows:,} pairs {of}have arguments that are objects, which the loader may fill in with nulls; "
            "fastsft pairs writes them as strings."
        )
    if longer := found.get("longer_chosen"):
        told.append(
            f"The chosen sides {of}are longer ({longer.examples[0].detail}), and what is learnt first is to say more; "
            "fastsft pairs --length-ratio bounds it."
        )
    return told
