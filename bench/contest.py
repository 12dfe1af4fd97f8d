"""Runs the same case in several workers, checks that they agree, and times them in turns."""

from __future__ import annotations

import json
import os
import select
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from bench.peers import fits, precision_of

ROOT = Path(__file__).resolve().parent.parent
PATIENCE = 900  # seconds for one answer; compilers take their time
# How far losses and logits may be from those in float64, as a share of the largest.
TOLERANCE = {"float32": 2e-3, "tf32": 1e-2, "bfloat16": 1e-1}


class Failed(Exception):
    """A worker could not do what it was told; the message says why."""


class Process:
    """A worker and the line to it."""

    def __init__(self, python, module, setting, environment):
        self.process = subprocess.Popen(
            [python, "-m", "bench.worker", module, setting],
            cwd=ROOT,
            env=os.environ | environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def ask(self, **request):
        try:
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            raise Failed("the process ended") from None
        if not select.select([self.process.stdout], [], [], PATIENCE)[0]:
            self.stop()
            raise Failed(f"no answer within {PATIENCE} s")
        line = self.process.stdout.readline()
        if not line:
            raise Failed(f"the process ended with code {self.process.wait()}")
        answer = json.loads(line)
        if "error" in answer:
            raise Failed(answer["error"])
        return answer

    def stop(self):
        self.process.kill()
        self.process.wait()


@dataclass
class Entry:
    """What one peer in one setting reached on one case. times in ms; error instead when it
    failed."""

    peer: str
    setting: str
    times: list[float] = field(default_factory=list)
    first_ms: float = 0.0
    rss_mb: float = 0.0
    error: str = ""

    @property
    def name(self):
        return self.peer if self.setting == "default" else f"{self.peer} {self.setting}"

    @property
    def median(self):
        return statistics.median(self.times)

    @property
    def spread(self):
        """Half the distance between the quartiles, as a share of the median."""
        low, high = np.percentile(self.times, (25, 75))
        return (high - low) / 2 / self.median

    @property
    def p99(self):
        return float(np.percentile(self.times, 99))


def module_of(peer, kind):
    """The module in bench.peers that does this kind of case."""
    return f"{peer}_ops" if kind == "ops" else peer


def probe(python, peers, kind, device="cpu", precision="float32"):
    """Of this kind: {(peer, setting): environment}, {peer: versions}, {peer: why it is missing}.
    peers: "name" for all its settings on the device, in float32 and in the precision, or
    "name:setting"."""
    settings, versions, missing = {}, {}, {}
    script = (
        "import importlib, json, sys; m = importlib.import_module('bench.peers.' + sys.argv[1]);"
        "print(); print(json.dumps([m.SETTINGS, m.versions()]))"
    )
    for peer, _, wanted in (name.partition(":") for name in peers):
        ran = subprocess.run(
            [python, "-c", script, module_of(peer, kind)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        if ran.returncode:
            missing[peer] = (ran.stderr.strip().splitlines() or ["it did not start"])[-1]
            continue
        offered, found = json.loads(ran.stdout.splitlines()[-1])
        chosen = {
            (peer, setting): environment
            for setting, environment in offered[kind].items()
            if setting == wanted or (not wanted and fits(setting, device, precision))
        }
        if chosen:
            settings |= chosen
            versions[peer] = found
        else:
            missing[peer] = f"no such setting for {kind} on {device}"
    return settings, versions, missing


def load(path):
    """The arrays that a worker has saved."""
    with np.load(path) as arrays:
        return list(arrays.values())


def agree(kind, expected, got, precision="float32"):
    """Raises Failed unless the losses of the first steps, or all results of an op or of inference,
    are those of the reference."""
    pairs = list(zip(expected, got, strict=True))
    if kind == "train":
        off = max(abs(e - g) / max(abs(e), 1e-3) for e, g in pairs)
    else:  # nan, where there is one, is the largest
        off = float(np.max([np.abs(e - g).max() / np.abs(e).max() for e, g in pairs]))
    if not off < TOLERANCE[precision]:
        raise Failed(f"wrong result: off by {off:.2g} from the reference")


class Workers:
    """The processes of all settings of one kind of case.

    Single ops share a process from case to case. On the CPU a network gets a fresh one, so that its
    peak of memory is its own.
    """

    def __init__(self, python, kind, settings):
        self.python, self.kind, self.settings = python, kind, settings
        self.running: dict[tuple[str, str], Process] = {}

    def start(self, peer, setting):
        process = self.running.get((peer, setting))
        if process is None or process.process.poll() is not None:
            environment = self.settings.get((peer, setting), {})
            module = module_of(peer, self.kind)
            process = Process(self.python, module, setting, environment)
            self.running[peer, setting] = process
        return process

    def build(self, peer, setting, case, batch):
        """The process with the case built, its check and the time of the first run in ms."""
        process = self.start(peer, setting)
        answer = process.ask(do="build", kind=self.kind, network=case, batch=batch)
        check = answer["check"]
        if isinstance(check, str):
            check, path = load(check), check
            os.unlink(path)
        return process, check, answer["first_ms"]

    def has_reference(self):
        """Whether torch is installed, which is the reference in float64."""
        try:
            self.start("torch64", "default").ask(do="hello")
        except Failed as failure:
            if "ModuleNotFoundError" in str(failure):
                return False
            raise SystemExit(f"bench: the reference failed: {failure}") from None
        return True

    def reference(self, case, batch):
        """The check of torch in float64, or None where torch is not installed."""
        try:
            return self.build("torch64", "default", case, batch)[1]
        except Failed as failure:
            if "ModuleNotFoundError" in str(failure):
                return None
            raise SystemExit(f"bench: the reference failed on {case}: {failure}") from None

    def end_case(self):
        on_gpu = any("cuda" in setting.split() for _, setting in self.settings)
        if self.kind != "ops" and not on_gpu:  # there the peak of the host's memory says little
            self.stop()

    def stop(self):
        for process in self.running.values():
            process.stop()
        self.running.clear()


def contest(workers, case, batch, seconds, rounds, progress, settings=None):
    """The entries of all settings of the workers, or of those given, for one case, ours first.

    Everyone builds the case and is checked against torch in float64 (or, where torch is not
    installed, against ours). Then, ``rounds`` times, each in turn runs for ``seconds``; the others
    wait without using the processor.
    """
    entries, ready = [], []
    progress(f"{case} batch {batch}: the reference")
    expected = workers.reference(case, batch)
    for peer, setting in workers.settings if settings is None else settings:
        entry = Entry(peer, setting)
        entries.append(entry)
        progress(f"{case} batch {batch}: building {entry.name}")
        try:
            process, check, entry.first_ms = workers.build(peer, setting, case, batch)
            expected = check if expected is None else expected
            agree(workers.kind, expected, check, precision_of(setting))
            ready.append((entry, process))
        except Failed as failure:
            entry.error = str(failure)
    for turn in range(rounds):
        for entry, process in ready:
            if not entry.error:
                progress(f"{case} batch {batch}: round {turn + 1}/{rounds} {entry.name}")
                take_turn(entry, process, seconds)
    for entry, process in ready:
        if not entry.error:
            entry.rss_mb = process.ask(do="peak")["rss_mb"]
    workers.end_case()
    return entries


def take_turn(entry, process, seconds):
    """Times one peer for a while; what the turn before has spun or cached is given time to end."""
    try:
        time.sleep(0.05)
        process.ask(do="run", seconds=0.0, least=1)
        entry.times += process.ask(do="run", seconds=seconds, least=2)["ms"]
    except Failed as failure:
        entry.error = str(failure)


def default_python():
    return sys.executable
