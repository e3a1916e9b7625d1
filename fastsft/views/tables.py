"""The distribution of rollouts as tables and a histogram of 80 columns."""

from __future__ import annotations

from fastsft.escape import escaped
from fastsft.statistics.distribution import THRESHOLDS, Distribution, Stats, edges_of
from fastsft.views.terminal import many, size_of

_BAR_CHARACTERS = 40
_AGENTS = 30  # shown one by one; --json has them all
_NAME_CHARACTERS = 33


def tables_of(stats: Stats) -> str:
    """Write what a person reads of the distribution."""
    fates = stats.fates
    refused = ", ".join(f"{reason} {count:,}" for reason, count in fates.refused.items())
    lines = [escaped(note) for note in stats.notes]
    lines += [
        f"{many(fates.lines, 'line')} of {many(stats.shards, 'shard')}, {size_of(stats.nbytes)}: "
        f"{many(stats.rollouts, 'rollout')}, "
        f"{fates.all_refused:,} refused, {fates.blank:,} blank.",
        *([f"  refused: {refused}"] if refused else []),
        *([f"  not to train on: {_listed(stats.gated)} (not counted below)"] if stats.gated else []),
        *([f"  no reward: {stats.no_reward:,}"] if stats.no_reward else []),
        "",
        f"{'':<12}{'mean':>12}{'min':>10}{'5%':>10}{'median':>10}{'95%':>10}{'max':>12}",
        _row("reward", stats.rewards, "{:.3g}"),
        *(_row(name, found, "{:,.0f}") for name, found in stats.lengths.items() if found.count),
        *_partly_known(stats),
        "",
        "Rewards",
        *_histogram(stats),
        "",
        "Rows that a threshold would keep, at most",
        *(
            f"  {threshold:>5}{count:>14,}{_part(count, stats.rewards.count):>8}"
            for threshold, count in stats.kept.items()
        ),
        "",
        f"{many(stats.tasks.count, 'task')}, {_number(stats.tasks.rollouts.mean, '{:.3g}')} rollouts each "
        f"({_number(stats.tasks.rollouts.min)} to {_number(stats.tasks.rollouts.max)}); at {stats.reward_threshold:g}:",
        f"  never solved {_of(stats.tasks.never, stats.tasks.count)}, sometimes "
        f"{_of(stats.tasks.sometimes, stats.tasks.count)}, always {_of(stats.tasks.always, stats.tasks.count)}",
        "",
        f"{'agent':<{_NAME_CHARACTERS}}{'rollouts':>12}{'mean':>9}" + "".join(f"{f'>={edge:g}':>8}" for edge in _EDGES),
        *(
            f"{_cut(agent.name):<{_NAME_CHARACTERS}}{agent.rewards.count:>12,}"
            f"{_number(agent.rewards.mean, '{:.3g}'):>9}"
            + "".join(f"{_part(agent.kept[str(edge)], agent.rewards.count):>8}" for edge in _EDGES)
            for agent in stats.agents[:_AGENTS]
        ),
    ]
    if len(stats.agents) > _AGENTS:
        lines.append(f"and {len(stats.agents) - _AGENTS:,} more; --json has them all")
    return "\n".join(lines)


_EDGES = (THRESHOLDS[0], THRESHOLDS[3], THRESHOLDS[4])


def _row(name: str, found: Distribution, form: str) -> str:
    middle = (_number(found.quantiles[part], form) for part in ("0.05", "0.5", "0.95"))
    mean = _number(found.mean, "{:.3g}" if name == "reward" else "{:,.1f}")
    low, high = _number(found.min, form), _number(found.max, form)
    return f"  {name:<10}{mean:>12}{low:>10}" + "".join(f"{value:>10}" for value in middle) + f"{high:>12}"


def _partly_known(stats: Stats) -> list[str]:
    lengths = stats.lengths.items()
    partly = [(name, found.count) for name, found in lengths if 0 < found.count < stats.rollouts]
    return [f"  {name} are known of {count:,} rollouts" for name, count in partly]


def _histogram(stats: Stats) -> list[str]:
    most = max((bar.count for bar in stats.histogram), default=0) or 1
    return [
        f"  {low:>9.3g} to {high:<9.3g}{bar.count:>12,} {'█' * -(-bar.count * _BAR_CHARACTERS // most)}"
        for (low, high), bar in zip(edges_of(stats.histogram), stats.histogram, strict=True)
    ]


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.items())


def _number(value: float | None, form: str = "{:,.0f}") -> str:
    return "-" if value is None else form.format(value)


def _part(count: int, total: int) -> str:
    return f"{count / total:.1%}" if total else "-"


def _of(count: int, total: int) -> str:
    return f"{count:,} ({_part(count, total)})"


def _cut(name: str | None) -> str:
    text = escaped(name) if name is not None else "(no agent_ref)"
    return text if len(text) < _NAME_CHARACTERS else f"{text[: _NAME_CHARACTERS - 2]}…"
