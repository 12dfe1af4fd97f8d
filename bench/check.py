"""A short check that nothing has become much slower: ratios to torch, against recorded ones.

    python -m bench check             compares with bench/results/ratios.json; exit code 1 at a loss
    python -m bench check --record    writes this machine's ratios there

Absolute times hold for one machine and one hour; a ratio to torch, measured in turns with it, lasts
longer. Both run on one thread and are timed by the processor time of their process, so other work
on the machine counts little, and torch's waiting threads do not count at all. Both use the same
instruction set, the best one of the machine for which there is a record, so that the record of one
machine is of use on another. A case fails when its ratio is below LOSS times the recorded one in
each of TRIES measurements.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from datetime import date
from pathlib import Path

from bench import contest, report
from bench.peers import KEEP

from convlet import _core

RECORD = Path(__file__).parent / "results" / "ratios.json"
LOSS = 0.8
TRIES = 3
SECONDS, ROUNDS = 0.2, 5  # of a turn; turns of each

CASES = (
    ("train", "M1", 32),
    ("infer", "M1", 1),
    ("infer", "M1", 64),
    ("ops", "conv2d M1 15x15x32 3x3/1 -> 64", 32),
    ("ops", "conv2d_backward_input M1 15x15x32 3x3/1 -> 64", 32),
    ("ops", "conv2d_backward_weight M1 15x15x32 3x3/1 -> 64", 32),
    ("ops", "max_pool2d_backward 30x30x32 2x2/2", 32),
    ("ops", "softmax_cross_entropy 1000 classes, with gradient", 32),
    ("ops", "batch_norm training 32x32x64", 8),
)
OURS, TORCH = ("convlet", "default"), ("torch", "channels_last keep")
# What keeps torch and oneDNN from instructions beyond ours.
LIMITS = {
    "baseline": {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41"},
    "avx2": {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"},
}


def title(kind, case, batch):
    return f"{case if kind == 'ops' else f'{kind} {case}'}, batch {batch}"


def workers(python, kind, isa):
    """The two processes' starter for one kind of case, each with one thread."""
    alone = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    settings = {
        OURS: {"CONVLET_NUM_THREADS": "1", "CONVLET_ISA": isa},
        TORCH: KEEP | alone | LIMITS.get(isa, {}),
    }
    return contest.Workers(python, kind, settings)


class Pair:
    """One case, built and compared in both processes."""

    def __init__(self, starter, case, batch):
        built = {peer: starter.build(*peer, case, batch) for peer in (OURS, TORCH)}
        contest.agree(starter.kind, built[TORCH][1], built[OURS][1])
        self.processes = {peer: built[peer][0] for peer in (OURS, TORCH)}

    def ratio(self, rounds):
        """torch's time over ours: the median of the turns' ratios."""
        ratios = []
        for _ in range(rounds):
            time = {}
            for peer, process in self.processes.items():
                answer = process.ask(do="run", seconds=SECONDS, least=3, clock="processor")
                time[peer] = statistics.median(answer["ms"])
            ratios.append(time[TORCH] / time[OURS])
        return statistics.median(ratios)


def measured(python, isa, rounds, recorded):
    """(title, ratio) of every case, as they come; measured again while far below the record."""
    for kind in dict.fromkeys(kind for kind, _, _ in CASES):
        starter = workers(python, kind, isa)
        try:
            for case, batch in ((c, b) for k, c, b in CASES if k == kind):
                pair, name = Pair(starter, case, batch), title(kind, case, batch)
                best = pair.ratio(rounds)
                for _ in range(TRIES - 1):
                    if best < LOSS * recorded.get(name, 0.0):
                        best = max(best, pair.ratio(rounds))
                yield name, best
                starter.end_case()
        finally:
            starter.stop()


def load():
    return json.loads(RECORD.read_text()) if RECORD.exists() else {}


def record(python):
    """Measures with twice the rounds and writes the record of the instruction set in use."""
    isa = _core.isa()
    ratios = dict(measured(python, isa, 2 * ROUNDS, {}))
    entry = {
        "cpu": report.cpu_name(),
        "date": date.today().isoformat(),
        "ratios": {name: round(ratio, 3) for name, ratio in ratios.items()},
    }
    RECORD.parent.mkdir(exist_ok=True)
    RECORD.write_text(json.dumps(load() | {isa: entry}, indent=1) + "\n")
    for name, ratio in ratios.items():
        print(f"{name:58}{ratio:6.2f}x")
    return 0


def check(python):
    """Prints every ratio beside the recorded one; 1 at a clear loss, else 0."""
    records = load()
    supported = _core.supported_isas()
    isa = next((name for name in reversed(supported) if name in records), _core.isa())
    entry = records.get(isa, {"cpu": "no machine", "date": "never", "ratios": {}})
    print(f"speed over torch, one thread each, {isa} (recorded {entry['date']}, {entry['cpu']}):")
    losses = 0
    for name, ratio in measured(python, isa, ROUNDS, entry["ratios"]):
        before = entry["ratios"].get(name)
        lost = before is not None and ratio < LOSS * before
        losses += lost
        was = "no record" if before is None else f"recorded {before:.2f}x"
        print(f"  {name:58}{ratio:6.2f}x  {was}{'  A CLEAR LOSS' if lost else ''}", flush=True)
    return int(losses > 0)


def main(arguments):
    parser = argparse.ArgumentParser("python -m bench check", description=__doc__.splitlines()[0])
    parser.add_argument("--record", action="store_true", help="write this machine's ratios")
    parser.add_argument("--python", default=sys.executable, help="runs the workers")
    options = parser.parse_args(arguments)
    return record(options.python) if options.record else check(options.python)
