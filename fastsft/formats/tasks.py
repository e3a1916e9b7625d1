"""NeMo Gym task rows: what a collection of rollouts, GRPO or on-policy distillation begins with.

A task row holds `responses_create_params`, `agent_ref`, and what the environment's verifier reads. NeMo Gym writes it
to `*_materialized_inputs.jsonl` before it runs anything. A rollout holds what the environment echoes of it, mixed with
what verification found, and its line alone does not tell which is which.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec
from msgspec import Raw

from fastsft.errors import Refused
from fastsft.formats.values import canonical_json
from fastsft.rollouts.depth import prune_deep_values
from fastsft.rollouts.rollout import ABSENT, json_type

_PARAMS, _AGENT = "responses_create_params", "agent_ref"
# What NeMo Gym adds to a task when it collects and scores an attempt.
_OF_THE_ATTEMPT = frozenset({"response", "output", "reward", "ng_model_call_capture", "trajectory"})
_OF_NEMO_GYM = "_ng_"
# What environments of NeMo Gym (07d6b0d) add when they verify, and none of its 163 folders of data has as an input.
# Names that an input may well have (`result`, `score`, `status`) stay: what is too much is ignored by most verifiers,
# and what is missing breaks them.
VERIFICATION = frozenset(
    "agent_error_kind agent_run_time agent_timed_out agent_timeout_error argument_detail argument_score comet_score "
    "container_exit_code container_services container_stderr context_length_exceeded_error delegated_response "
    "eval_timed_out evaluation_completed extracted_answer extracted_judgement extracted_model_code "
    "extracted_model_output extracted_rtl extracted_sql extracted_verdict extraction_successful failure_reason "
    "finished_naturally follow_all_instructions follow_instruction_list generated_response instance_config "
    "invalid_judge_response is_abstain is_correct is_incorrect is_not_attempted is_partial judge_error "
    "judge_evaluations judge_output judge_passed judge_rating judge_response judge_text language_consistency_score "
    "library_reward mask_sample match_details memory_limit_exceeded_error model_output model_patch "
    "num_rollout_tool_calls omniscience_index parse_failed patch_exists predicted_answer predicted_calls "
    "predicted_count predicted_nodes predicted_output resolved reward_components rubric_evaluations sentence_chrf "
    "sentence_spbleu similarity_score symbolic_correct target_match terminated tool_name_match truncated turns_used "
    "verdict verification_skipped".split()
)

_line = msgspec.json.Decoder(dict[str, Raw])
_encode = msgspec.json.Encoder().encode


class _Agent(msgspec.Struct):
    name: str | None = None


class _Seed(msgspec.Struct):
    seed: Raw = ABSENT


class _Metadata(msgspec.Struct):
    extra_body: str = "{}"


class _Params(msgspec.Struct):
    metadata: _Metadata | None = None


_agent = msgspec.json.Decoder(_Agent)
_params = msgspec.json.Decoder(_Params)
_seed = msgspec.json.Decoder(_Seed)


class TaskRow(NamedTuple):
    """One task row.

    Attributes:
        body: Its JSON, without a line feed.
        dropped: The keys that it lacks because verification adds them.
        kept: The keys beside the prompt and the agent.
        agent: The agent that runs it, by its name; None where it names none.
        has_seed: Whether all attempts at it would sample with one seed.
    """

    body: bytes
    dropped: tuple[str, ...]
    kept: tuple[str, ...]
    agent: str | None
    has_seed: bool


def task_row(line: bytes | memoryview, *, is_rollout: bool) -> TaskRow:
    """Return the task row of a rollout, or of a line of materialized inputs.

    Text and numbers keep the form they are written in.

    >>> task_row(b'{"responses_create_params": {"input": "2+2?"}, "reward": 1, "_ng_task_index": 0}', is_rollout=True)
    TaskRow(body=b'{"responses_create_params":{"input":"2+2?"}}', dropped=(), kept=(), agent=None, has_seed=False)

    Raises:
        Refused: It is no JSON object with `responses_create_params`, or holds what no strict reader takes.
    """
    values = _values_of(line)
    if json_type(values.get(_PARAMS, ABSENT)) != "object":
        raise Refused("no_prompt", "a task row has responses_create_params, an object, and this line has none")
    dropped = [key for key in values if is_rollout and key in VERIFICATION]
    gone = {*dropped, *(_OF_THE_ATTEMPT if is_rollout else ())}
    kept = {key: value for key, value in values.items() if key not in gone and not key.startswith(_OF_NEMO_GYM)}
    body = _encode({key: canonical_json(value) for key, value in kept.items()})
    return TaskRow(
        body,
        tuple(dropped),
        tuple(key for key in kept if key not in (_PARAMS, _AGENT)),
        _agent_in(kept.get(_AGENT)),
        _has_seed(kept[_PARAMS]),
    )


def _values_of(line: bytes | memoryview) -> dict[str, Raw]:
    try:
        return _line.decode(line)
    except RecursionError:  # what is left out may nest as deep as it likes
        return _line.decode(prune_deep_values(bytes(line)))
    except msgspec.ValidationError:
        raise Refused("not_object", "the line is not a JSON object") from None
    except msgspec.DecodeError as error:
        raise Refused("bad_json", f"not a JSON object: {error}") from None


def _agent_in(agent: Raw | None) -> str | None:
    try:
        return None if agent is None else _agent.decode(agent).name or None
    except (msgspec.DecodeError, RecursionError):
        return None


def _has_seed(params: Raw) -> bool:
    """Tell whether `metadata.extra_body` fixes a seed, as `num_repeats_add_seed` writes it."""
    if b"extra_body" not in bytes(params):
        return False
    try:
        metadata = _params.decode(params).metadata
        return metadata is not None and bool(_seed.decode(metadata.extra_body).seed)
    except (msgspec.DecodeError, RecursionError):
        return False
