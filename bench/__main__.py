"""convlet against its peers, on this machine, in one command.

    python -m bench train [--models M1 M2 ...] [--batches 32 128] [--peers torch keras ...]
    python -m bench infer [--models M1 M2 ...] [--batches 1 64]
    python -m bench ops   [--cases conv2d max_pool2d ...] [--models M1 ...] [--batches 32]
    python -m bench epoch [--images 50000] [--batches 64]      one epoch from the process' start
    python -m bench check                                      a minute: slower than recorded?
    python -m bench chart RECORD.json ... --png FILE           one chart of several records
    python -m bench.step_profile                               a training step, step by step

Every result is checked against torch in float64 (without torch, against ours) before it is timed;
ours and each setting of each peer run in turns, each in a process of its own; medians, with half
the distance of the quartiles. Peers that are not installed are named. `pip install '.[bench]'`
brings them all. With --precision bfloat16, ours and those peers that can run in bfloat16 as well as
in float32. With --device cuda train, infer and ops run on a GPU: a step of training is a part of an
epoch over data that is there, a call of an op a part of a CUDA graph, and infer goes from images on
the host to results on the host.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
import time
from pathlib import Path

from bench import check, contest, networks, op_cases, report, start
from bench.ceilings import ceilings, gpu
from bench.peers import OP_PEERS, PEERS, PRECISIONS, precision_of

DEFAULTS = ("cpu", "float32")
OFFERED = {"ops": OP_PEERS, "epoch": ("keras", "torch")}
BATCHES = {"train": [32, 128], "infer": [1, 64], "ops": [32], "epoch": [64]}
# On a GPU.
CUDA_BATCHES = {"train": [128, 1024], "infer": [1, 64], "ops": [256]}
# Of the networks whose steps are long, or whose memory is.
TRAIN_BATCHES = {"M4": [32], "M6": [8]}


def parse(arguments):
    parser = argparse.ArgumentParser(
        "python -m bench",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("what", choices=list(BATCHES))
    parser.add_argument(
        "--models",
        nargs="+",
        metavar="M1",
        help=f"of {', '.join(networks.NETWORKS)}; of ops, the layers of these alone",
    )
    parser.add_argument("--batches", nargs="+", type=int, help="images in a batch")
    parser.add_argument("--precision", default="float32", choices=PRECISIONS, help="tf32: on a GPU")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument(
        "--winograd", action="store_true", help='train: ours also with winograd="always"'
    )
    parser.add_argument(
        "--peers",
        nargs="+",
        metavar="NAME[:SETTING]",
        help=f"of {', '.join(PEERS)}; all settings of a peer, or one: torch:default",
    )
    parser.add_argument("--cases", nargs="+", help="ops whose names begin with one of these")
    parser.add_argument("--images", type=int, help="in the epoch: 50,000")
    parser.add_argument("--seconds", type=float, default=0.5, help="of each turn")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each")
    parser.add_argument("--budget", type=float, help="seconds after which no case is begun")
    parser.add_argument(
        "--python", default=contest.default_python(), help="the interpreter that runs the workers"
    )
    parser.add_argument("--json", help="write the record here")
    parser.add_argument("--png", help="draw the chart here")
    options = parser.parse_args(arguments)
    offered = OFFERED.get(options.what, PEERS)
    options.peers = offered if options.peers is None else options.peers
    for name in options.peers:
        if name.partition(":")[0] not in offered:
            parser.error(f"--peers: expected some of {', '.join(offered)}, got {name}")
    check_use(parser, options)
    for name in options.cases or ():
        if not any(case.name.startswith(name) for case in op_cases.CASES):
            known = ", ".join(dict.fromkeys(case.op for case in op_cases.CASES))
            parser.error(f"--cases: expected the beginning of a name ({known}, ...), got {name}")
    for name in options.models or ():
        if name not in networks.NETWORKS:
            parser.error(f"--models: expected some of {', '.join(networks.NETWORKS)}, got {name}")
    if options.what == "ops" and not chosen_ops(options):
        parser.error("--cases and --models: no op is of both")
    options.images = options.images or 50_000
    return options


def check_use(parser, options):
    """Ends with an error for options that would have no effect."""
    what, on_cpu = options.what, options.device == "cpu"
    if options.winograd and not (what == "train" and on_cpu):
        parser.error("--winograd is for train on the cpu")
    if options.cases and what != "ops":
        parser.error("--cases is for ops")
    if options.images and what != "epoch":
        parser.error("--images is for epoch")
    if options.models and what == "epoch":
        parser.error("--models: epoch trains M1")
    if what == "epoch" and (options.device, options.precision) != DEFAULTS:
        parser.error("epoch runs on the cpu in float32")
    if what == "ops" and on_cpu and options.precision != "float32":
        parser.error("ops runs in float32 on the cpu")
    if options.precision == "tf32" and on_cpu:
        parser.error("--precision tf32 is for --device cuda")
    check_output(parser, options.png, options.json)


def check_output(parser, png, *others):
    """Ends with an error, now rather than after hours, where files cannot be written."""
    if png and importlib.util.find_spec("matplotlib") is None:
        parser.error("--png needs matplotlib, which `pip install '.[bench]'` brings")
    for path in (png, *others):
        if path and not Path(path).resolve().parent.is_dir():
            parser.error(f"{path}: there is no such folder")


def batches(options, model=None):
    if options.device == "cuda":
        return options.batches or CUDA_BATCHES[options.what]
    usual = BATCHES[options.what]
    if options.what == "train":
        usual = TRAIN_BATCHES.get(model, usual)
    return options.batches or usual


def network_cases(options):
    of = "" if options.precision == "float32" else f", {options.precision}"
    for name in options.models or networks.NETWORKS:
        network = networks.NETWORKS[name]
        for batch in batches(options, name):
            train = options.what == "train"
            yield {
                "case": name,
                "batch": batch,
                "title": f"{name} {network.title}, {options.what}, batch {batch}{of}",
                "flops": networks.flops(network, train) * batch,
                "images": batch,
            }


def chosen_ops(options):
    """The cases of ops that --cases and --models leave."""
    begins, models = tuple(options.cases or [""]), options.models
    return [
        case
        for case in op_cases.CASES
        if case.name.startswith(begins) and (models is None or set(models) & set(case.models))
    ]


def cases(options):
    if options.what != "ops":
        return network_cases(options)
    return (
        {
            "case": case.name,
            "batch": batch,
            "title": f"{case.name}, batch {batch}",
            "flops": case.flops(batch),
            "has_precision": case.has_precision,
            "bytes": case.bytes(batch),
        }
        for case in chosen_ops(options)
        for batch in batches(options)
    )


def progress(text):
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


def main():
    others = {"check": check.main, "chart": chart}
    if sys.argv[1:] and sys.argv[1] in others:
        sys.exit(others[sys.argv[1]](sys.argv[2:]))
    options = parse(sys.argv[1:])
    start_time = time.perf_counter()
    where = report.circumstances(gpu(options.python) if options.device == "cuda" else ceilings())
    print(
        f"{where['cpu']}, {where['cores']} cores, {where['isa']}; commit {where['commit']}; "
        f"{where['date']}"
    )
    if options.device == "cpu":
        peak, memory = where["fma_gflops"], where["memory_gb_s"]
        print(f"the most that this machine can: {peak:.0f} GFLOP/s float32, {memory:.0f} GB/s")
    else:
        rates = [f"{rate / 1e3:.0f} TFLOP/s {name}" for name, rate in where["gflops"].items()]
        rates.append(f"{where['memory_gb_s']:.0f} GB/s")
        print(f"the most that this GPU can: {', '.join(rates)}")
    measure = measure_epoch if options.what == "epoch" else measure_cases
    records, versions, missing = [], {}, {}
    for case, entries, known in measure(options):
        progress("")
        versions, missing = known
        print("\n".join(["", *report.rows(case, entries, where)]), flush=True)
        records.append(report.record(case, entries))
        if options.json:  # whole after every case: a long run that is cut keeps what it has
            report.write_json(options.json, where, records, versions, missing, sys.argv[1:])
        if options.budget and time.perf_counter() - start_time > options.budget:
            print(f"stopped after {case['title']}: {options.budget:.0f} s have passed")
            break
    if options.png:
        report.chart(options.png, where, records)


def chart(arguments):
    """Draws the cases of several records; where and when is said of the first."""
    parser = argparse.ArgumentParser("python -m bench chart")
    parser.add_argument("records", nargs="+", metavar="RECORD.json")
    parser.add_argument("--png", required=True)
    options = parser.parse_args(arguments)
    check_output(parser, options.png)
    try:
        found = [json.loads(Path(path).read_text()) for path in options.records]
    except (OSError, ValueError) as error:
        parser.error(f"expected records: {error}")
    report.chart(options.png, found[0]["where"], [case for f in found for case in f["cases"]])


def fits_case(case, setting):
    """Whether an op has the precision: convolutions and dense layers alone have one."""
    return case["has_precision"] or precision_of(setting) == "float32"


def probe(options, peers, kind):
    """contest.probe; prints what it found, and which peers are missing."""
    settings, versions, missing = contest.probe(
        options.python, peers, kind, options.device, options.precision
    )
    print("; ".join(f"{k} {v}" for found in versions.values() for k, v in found.items()))
    for peer, reason in missing.items():
        print(f"missing: {peer} ({reason})")
    return settings, versions, missing


def measure_cases(options):
    """(case, entries, (versions, missing)) of each case of train, infer or ops."""
    peers = ["convlet", *["convlet:winograd"] * options.winograd, *options.peers]
    settings, versions, missing = probe(options, peers, options.what)
    workers = contest.Workers(options.python, options.what, settings)
    if not workers.has_reference():
        print("missing: torch in float64, the reference; results are checked against convlet's")
    try:
        for case in cases(options):
            chosen = [s for s in settings if options.what != "ops" or fits_case(case, s[1])]
            entries = contest.contest(
                *(workers, case["case"], case["batch"]),
                *(options.seconds, options.rounds, progress, chosen),
            )
            yield case, entries, (versions, missing)
    finally:
        workers.stop()


def measure_epoch(options):
    """The same of one epoch from the start of the process."""
    _, versions, missing = probe(options, ["convlet", *options.peers], "train")
    for batch in batches(options):
        entries, facts = start.epoch(
            options.python, list(versions), options.images, batch, options.rounds, progress
        )
        progress("")
        print("\n".join(start.lines_of(facts)))
        title = f"process start to the end of one epoch over {options.images:,} images, M1"
        case = {
            "case": "epoch",
            "batch": batch,
            "title": f"{title}, batch {batch}",
            "images": options.images,
            "facts": {n: {"import_s": f[0], "installed_mb": f[1]} for n, f in facts.items()},
        }
        yield case, entries, (versions, missing)


if __name__ == "__main__":
    main()
