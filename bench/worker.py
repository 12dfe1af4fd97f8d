"""One framework in one setting, in a process of its own, that does what it is told line by line.

    python -m bench.worker PEER SETTING

reads JSON lines from its input and answers each with one:

    {"do": "hello"}                                        -> {"versions", "import_s", "rss_mb"}
    {"do": "build", "kind": "train" | "infer" | "ops", "network": "M1", "batch": 32, "seed": 0}
        -> {"check", "first_ms"}: the losses of the first steps, or the path of the results. For
        "ops" the network is the name of a case, and PEER the module with the ops
    {"do": "run", "seconds": 0.5, "least": 3}              -> {"ms": [...]}: the time of each run;
        with "clock": "processor", the time that the process had the processor
    {"do": "peak"}                                         -> {"rss_mb"}: the most memory so far

An error is answered as {"error": "..."}; the worker goes on.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from bench import networks, op_cases
from bench.peers import results_of

CHECKED_STEPS = 3


def peak_rss_mb(process="self"):
    """The largest resident size of a process so far, in MB; 0 when it has ended. (The figure of
    getrusage begins with that of the process that started it.)"""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return next((int(s.split()[1]) / 1024 for s in lines if s.startswith("VmHWM:")), 0.0)


def save(arrays):
    """The path of a new file with the arrays."""
    handle, path = tempfile.mkstemp(suffix=".npz")
    with os.fdopen(handle, "wb") as file:
        np.savez(file, *arrays)
    return path


class Worker:
    def __init__(self, name, setting):
        start = time.perf_counter()
        self.peer = importlib.import_module(f"bench.peers.{name}")
        self.import_s = time.perf_counter() - start
        self.setting, self.run = setting, None

    def hello(self):
        return {
            "versions": self.peer.versions(),
            "import_s": self.import_s,
            "rss_mb": peak_rss_mb(),
        }

    def build(self, kind, network, batch, seed=0):
        self.run = None
        gc.collect()
        if kind == "ops":
            return self.build_op(op_cases.BY_NAME[network], batch)
        described = networks.NETWORKS[network]
        weights = networks.weights(described, seed)
        images, labels = networks.batch(described, batch)
        start = time.perf_counter()
        if kind == "train":
            self.run = self.peer.train(self.setting, described, weights, images, labels)
            check = [self.run()]
            first = time.perf_counter() - start
            check += [self.run() for _ in range(CHECKED_STEPS - 1)]
        else:
            self.run = self.peer.infer(self.setting, described, weights, images)
            logits = self.run()
            first = time.perf_counter() - start
            check = save([np.asarray(logits, np.float32)])
        return {"check": check, "first_ms": 1e3 * first}

    def build_op(self, case, batch):
        start = time.perf_counter()
        self.run = self.peer.op(self.setting, case, case.arrays(batch))
        result = self.run()
        first = time.perf_counter() - start
        return {"check": save(results_of(self.run, result)), "first_ms": 1e3 * first}

    def time(self, seconds, least, clock="wall"):
        if hasattr(self.run, "times"):
            return {"ms": self.run.times(seconds, least)}
        now = time.process_time if clock == "processor" else time.perf_counter
        times, end = [], now() + seconds
        while len(times) < least or now() < end:
            start = now()
            self.run()
            times.append(1e3 * (now() - start))
        return {"ms": times}

    def answer(self, request):
        do = request.pop("do")
        if do == "hello":
            return self.hello()
        if do == "build":
            return self.build(**request)
        if do == "run":
            return self.time(**request)
        return {"rss_mb": peak_rss_mb()}


def main():
    # What libraries print must not get between the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    worker = None
    for line in sys.stdin:
        try:
            if worker is None:
                worker = Worker(sys.argv[1], sys.argv[2])
            answer = worker.answer(json.loads(line))
        except Exception as error:  # whatever a framework raises belongs to the report
            answer = {
                "error": f"{type(error).__name__}: {str(error).splitlines()[0][:200]}"
                if str(error)
                else type(error).__name__
            }
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
