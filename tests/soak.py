"""Convert random rollouts with random options, killed and gone on with, and hold what comes out against an oracle.

usage: python tests/soak.py [--seconds 60] [--seed N] [--rounds N]

A round makes shards of real and generated rollouts, damages some, draws options, converts them once undisturbed with
`--jobs 1`, and once more with kills in between, over an older output or none. What came out is judged twice: line by
line by `benchmarks/baseline.py`, and byte by byte by the undisturbed run. `--seed N --rounds 1` repeats the round that
printed seed N, but for the moments at which its signals arrive. What is wrong ends the program with exit code 1, and
its folder is kept.
"""

from __future__ import annotations

import argparse
import os
import random
import secrets
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(PROJECT), str(PROJECT / "tests"), str(PROJECT / "benchmarks")]

import soak_corpus  # noqa: E402 # found by the line before
import soak_judge  # noqa: E402
import soak_options  # noqa: E402
from soak_judge import WrongError, need  # noqa: E402
from soak_run import Ended, Kill, Runner, Sizes, draw_kill  # noqa: E402


class Round:
    """One round; `play` raises WrongError."""

    def __init__(self, seed: int, folder: Path) -> None:
        self.rng = random.Random(seed)
        self.folder = folder
        self.plan = soak_options.draw(self.rng)
        self.paths = soak_corpus.write(self.rng, folder / "in", self.plan)
        self.inputs = soak_judge.files_in(folder / "in")
        self.quiet = Runner(folder / "undisturbed")
        self.killed = Runner(folder / "killed")
        nbytes = sum(map(len, self.inputs.values()))
        span = max(self.rng.choice([500, 500, 4_000, 30_000]), nbytes // 80)
        self.sizes = Sizes(span, self.rng.choice([200, 3_000, 70_000]), self.rng.choice([0, 2_000, 5_000]))
        self.lines = 0
        self.may_be_new = False  # whether an earlier run had begun to publish

    def play(self) -> None:
        """Convert, undisturbed and not, and compare."""
        rng, plan = self.rng, self.plan
        # Shards by size hold whole spans; else their size never shows, so here they may be as large as they are.
        sizes = self.sizes._replace(slow_us=0) if plan.cuts_by_size else rng.choice([self.sizes, Sizes()])
        whole = self.quiet.run(self.words(plan, jobs=1, more=["--fresh"]), sizes)
        judged = soak_corpus.read(self.paths, plan)
        self.lines = sum(len(lines or []) for lines in judged)
        names = [f"../in/{path.name}" for path in self.paths]
        soak_judge.against_the_oracle(plan, names, judged, whole, self.quiet.folder)

        more = self.index() or rng.choice([[], [], ["--verify-inputs"]])
        old = self.older_output(more)
        new = old if whole.code else soak_judge.visible(self.quiet.folder / "out")
        jobs = rng.choice([1, 2, 2, 2, 3])
        for _ in range(rng.choice([0, 1, 1, 2, 3])):
            kill = draw_kill(rng, whole.seconds + 0.3 * (jobs > 1), jobs=jobs)
            ended = self.killed.run(self.words(plan, jobs=jobs, more=more), self.sizes, kill)
            old = self.after_a_kill(ended, kill, whole, old, new)
            if rng.random() < 0.3:
                self.tamper()
            if rng.random() < 0.2:
                jobs = rng.randint(1, 3)
        more += rng.choice([[], [], [], [], ["--fresh"]])
        ended = self.killed.run(self.words(plan, jobs=jobs, more=more), self.sizes)
        need(ended.code == whole.code, f"exit code {ended.code}, and undisturbed {whole.code}: {ended.said}")
        need("Traceback" not in ended.said, f"a traceback: {ended.said}")
        self.at_the_end(new)

    def words(self, plan: soak_options.Plan, *, jobs: int, more: list[str]) -> list[str]:
        """Return the words of a conversion."""
        return ["convert", *self.inputs_named(), "--output", plan.output, *plan.words, "--jobs", str(jobs), *more]

    def inputs_named(self) -> list[str]:
        """Return the inputs as both runs name them, each in its own folder."""
        return [f"../in/{path.name}" for path in self.paths]

    def index(self) -> list[str]:
        """Write an index now and then, for the run that is killed; the undisturbed one chooses from a scan.

        Not where one pass would do: an index makes two of it, and the list of refused lines has another order.
        """
        plan = self.plan
        if not plan.compares or not plan.may_use_index or self.rng.random() < 0.5:
            return []
        words = ["index", *self.inputs_named(), "--output", "rollouts.index", *plan.layout_words]
        words += ["--dedup"] if plan.is_unique else []
        words += ["--max-line", str(plan.max_line)] if plan.max_line else []
        ended = self.killed.run([*words, "--jobs", str(self.rng.randint(1, 2))], self.sizes)
        need(ended.code in (0, 1), f"index: exit code {ended.code}: {ended.said}")
        return ["--index", "rollouts.index"] if ended.code == 0 else []

    def older_output(self, more: list[str]) -> dict[str, bytes]:
        """Leave what earlier runs of other options or inputs leave, whole ones and killed ones; return the output."""
        rng = self.rng
        plan = soak_options.older(rng, self.plan)
        if rng.random() < 0.4:
            self.killed.run(self.words(plan, jobs=1, more=more), self.sizes._replace(slow_us=0))
        kill = Kill("parent", rng.choice([signal.SIGKILL, signal.SIGTERM]), "receipts", rng.choice([1, 2, 5, 10]))
        match rng.choice([None, None, "options", "inputs"]):
            case "options":
                self.killed.run(self.words(plan, jobs=2, more=more), self.sizes, kill)
            case "inputs" if "--index" not in more:  # which would not fit any more
                path = rng.choice(self.paths)
                data, stat = path.read_bytes(), path.stat()
                path.write_bytes(rng.choice([data + b"\n{}", data[: len(data) // 2], data.replace(b"the", b"not")]))
                are_verified = "--verify-inputs" in more
                if are_verified:  # else times of change tell, and these are the same
                    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
                self.killed.run(self.words(self.plan, jobs=2, more=more), self.sizes, kill)
                self.killed.remaining()  # waits: a worker that reads still would hash what it did not convert
                path.write_bytes(data)
                if are_verified:
                    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        self.finish_publishing()
        return soak_judge.visible(self.killed.folder / "out")

    def is_publishing(self) -> bool:
        """Tell whether a killed run had begun to publish; records of splits alone say nothing."""
        return (self.killed.folder / "out/.train.fastsft/publish.json").exists()

    def finish_publishing(self) -> None:
        """Have `verify` finish what a killed run had begun to publish."""
        if self.is_publishing():
            verified = self.killed.run(["verify", self.plan.output], Sizes())
            need(verified.code == 0, f"verify does not finish what was begun to be published: {verified.said}")

    def after_a_kill(
        self, ended: Ended, kill: Kill, whole: Ended, old: dict[str, bytes], new: dict[str, bytes]
    ) -> dict[str, bytes]:
        """Judge what a kill left, and return what is there now."""
        out = self.killed.folder / "out"
        codes = {whole.code, -kill.number, 128 + kill.number} if kill.who != "worker" else {whole.code, 1}
        if ended.was_killed or ended.code != whole.code:
            need(ended.code in codes, f"exit code {ended.code} after {kill}: {ended.said}")
        if kill.who == "worker" and ended.code == 1 != whole.code:
            # Of all others, another worker does the work.
            need("it was at choosing" in ended.said, f"exit code 1 after {kill}: {ended.said}")
        is_told = "Traceback" in ended.said and "fastsft" in ended.said  # without it, Python itself was starting
        need(not is_told, f"a traceback after {kill}: {ended.said}")
        if self.rng.random() < 0.5 and self.is_publishing():
            self.may_be_new = True
            self.finish_publishing()
        elif self.is_publishing():
            self.may_be_new = True
            return old  # until the next run finishes it
        found = soak_judge.visible(out)
        need(found in (old, new), f"neither old nor new after {kill}: {soak_judge.differing(found, new)}")
        need(ended.code != 0 or found == new, f"exit code 0, and not new: {soak_judge.differing(found, new)}")
        is_said = ended.code != 128 + kill.number or self.may_be_new or found == old
        need(is_said, f"exit code {ended.code}, and published")
        return found

    def tamper(self) -> None:
        """Spoil a file that an interrupted run left."""
        found = sorted(self.killed.folder.glob("out/.*.fastsft/[0-9a-f]*/*"))
        found = [path for path in found if path.stat().st_size]
        if not found or self.is_publishing():
            return
        path = self.rng.choice(found)
        data = path.read_bytes()
        self.killed.history.append(f"# {path.name} is spoilt")
        match self.rng.choice(["cut", "flip", "remove"]):
            case "cut":
                path.write_bytes(data[: len(data) // 2])
            case "flip" if path.suffix != ".receipt":  # it has no digest of itself
                at = self.rng.randrange(len(data))
                path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
            case _:
                path.unlink()

    def at_the_end(self, new: dict[str, bytes]) -> None:
        """Judge what the last run left."""
        out = self.killed.folder / "out"
        found = soak_judge.visible(out)
        need(found == new, f"other bytes than the undisturbed run's: {soak_judge.differing(found, new)}")
        for runner in (self.quiet, self.killed):
            left = soak_judge.hidden(runner.folder / "out") + [path.name for path in (runner.folder / "tmp").iterdir()]
            need(not left, f"left behind: {left}")
            need(not runner.remaining(), f"processes remain: {runner.remaining()}")
        need(soak_judge.files_in(self.folder / "in") == self.inputs, "inputs were touched")
        if new:
            verified = self.killed.run(["verify", self.plan.output], Sizes())
            need(verified.code == 0, f"verify: {verified.said}")


def play(seed: int, totals: Counter[str]) -> bool:
    """Play a round, and tell whether all was well."""
    folder = Path(tempfile.mkdtemp(prefix=f"fastsft-soak-{seed}-"))
    this = Round(seed, folder)
    runners = (this.quiet, this.killed)
    problem = ""
    try:
        this.play()
    except WrongError as wrong:
        problem = str(wrong)
    finally:
        for runner in runners:
            runner.end_all()
            totals["runs"] += len(runner.sessions)
            totals["kills"] += runner.kills
            totals["resumed"] += runner.resumed
    totals["lines"] += this.lines
    totals["rounds"] += 1
    print(f"seed {seed}: {this.lines:,} lines in {len(this.paths)} shards, {' '.join(this.plan.words)}", flush=True)
    if problem:
        history = "\n  ".join(line for runner in runners for line in [f"in {runner.folder}:", *runner.history])
        print(f"WRONG, python tests/soak.py --seed {seed} --rounds 1\n  {history}\n{problem}\nkept: {folder}")
        return False
    shutil.rmtree(folder)
    return True


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60, help="begin no round after so long")
    parser.add_argument("--seed", type=int, help="of the first round; that of the next is one more")
    parser.add_argument("--rounds", type=int, help="do so many, however long they take")
    words = parser.parse_args()
    seed = secrets.randbelow(10**9) if words.seed is None else words.seed
    started = time.monotonic()
    totals: Counter[str] = Counter()

    def is_over() -> bool:
        return time.monotonic() - started >= words.seconds if words.rounds is None else totals["rounds"] == words.rounds

    is_well = True
    while is_well and not is_over():
        is_well = play(seed + totals["rounds"], totals)
    told = ", ".join(f"{totals[name]:,} {name}" for name in ("rounds", "runs", "kills", "resumed", "lines"))
    print(f"{told}, {time.monotonic() - started:.0f} seconds, seed {seed}")
    return 0 if is_well else 1


if __name__ == "__main__":
    sys.exit(main())
