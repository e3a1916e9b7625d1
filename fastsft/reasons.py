"""Every reason for which a line is dropped or refused, by its name; `docs/reasons.md` says what each means."""

from __future__ import annotations

# Of a dropped line, with the option without which no line is dropped for it; None where it is always asked. Beside them
# there is `same_task` of `fastsft tasks`, which keeps one line of each task.
DROPPED: dict[str, str | None] = {
    "masked": None,
    "failed": None,
    "unverified": None,
    "incomplete": None,
    "no_generation": None,
    "no_user_turn": None,
    "no_reward": None,
    "pass_rate": "--pass-rate",
    "below_threshold": None,
    "above_max": "--max-reward",
    "where": "--where",
    "too_long": "--max-tokens",
    "untrainable": "--trainable",
    "duplicate": "--dedup",
    "not_best": "--best-of",
    "per_task": "--per-task",
    "per_agent": "--per-agent",
    "not_sampled": "--sample",
}
REFUSED = (
    *("bad_json", "bad_utf8", "line_too_long", "not_object", "no_prompt", "prompt_elsewhere", "no_output"),
    *("repeated_key", "reward_type", "bad_item", "unknown_item", "bad_content", "unknown_part", "bad_arguments"),
    *("results_missing", "bad_tool", "bad_number", "too_deep", "too_many_values", "not_rendered", "not_text"),
    *("no_assistant_turn", "not_alternating"),
)
FATES = ("kept", "dropped", "refused", "blank")


def is_of(reason: str | None, wanted: str) -> bool:
    """Tell whether a line that is not blank met the fate, or went for the reason, that is wanted; None is kept.

    >>> is_of("untrainable:bad_call", "untrainable"), is_of("bad_json", "refused"), is_of(None, "dropped")
    (True, True, False)
    """
    if reason is None:
        return wanted == "kept"
    name = reason.partition(":")[0]
    return wanted in (reason, name, "refused" if name in REFUSED else "dropped")
