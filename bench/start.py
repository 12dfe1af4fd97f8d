"""What a user waits for and pays: imports, installed size, one epoch from the start on."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
from bench.contest import ROOT, Entry
from bench.worker import peak_rss_mb

# The packages that a framework needs beside numpy, as pip names their folders.
PACKAGES = {
    "convlet": ["convlet", "PIL", "pillow.libs", "safetensors"],
    "keras": [
        *("keras", "tensorflow", "clang", "grpc", "google", "h5py", "h5py.libs", "ml_dtypes"),
        *("optree", "rich"),
    ],
    "torch": ["torch", "sympy", "networkx", "torchgen"],
}


def make_images(folder, count):
    """An .npz of random uint8 images (count, 32, 32, 3) and their labels."""
    rng = np.random.default_rng(0)
    path = Path(folder) / "images.npz"
    images = rng.integers(0, 256, (count, 32, 32, 3), np.uint8)
    np.savez(path, images=images, labels=rng.integers(0, 10, count))
    return path


def run_once(python, name, data, batch):
    """(seconds from start to end of the process, those of its imports, peak MB, its last line)."""
    script = Path(__file__).parent / "epoch" / f"{name}_epoch.py"
    with tempfile.TemporaryFile("w+") as output:
        start = time.perf_counter()
        process = subprocess.Popen(
            [python, str(script), str(data), str(batch)],
            cwd=ROOT,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"},
        )
        rss = 0.0
        while process.poll() is None:
            rss = max(rss, peak_rss_mb(process.pid))
            time.sleep(0.01)
        seconds = time.perf_counter() - start
        output.seek(0)
        lines = [line.strip() for line in output.read().splitlines() if line.strip()]
    if process.returncode:
        raise RuntimeError(lines[-1] if lines else "no output")
    imports = next(float(line) for line in lines if line.replace(".", "", 1).isdigit())
    return seconds, imports, rss, lines[-1]


def installed_mb(python, name):
    """What pip put on the disk for it, or None where it is not installed."""
    script = (
        "import sys, pathlib\n"
        "total = 0\n"
        "for name in sys.argv[1:]:\n"
        "    for root in map(pathlib.Path, sys.path):\n"
        "        folder = root / name\n"
        "        if folder.is_dir():\n"
        "            total += sum(f.stat().st_size for f in folder.rglob('*') if f.is_file())\n"
        "            break\n"
        "print(total / 1e6)"
    )
    ran = subprocess.run(
        [python, "-c", script, *PACKAGES[name]], capture_output=True, text=True, check=True
    )
    return float(ran.stdout)


def epoch(python, names, count, batch, rounds, progress):
    """(entries, {name: (import seconds, installed MB, what its last line said)})."""
    entries = {name: Entry(name, "default") for name in names}
    facts = {}
    with tempfile.TemporaryDirectory() as folder:
        data = make_images(folder, count)
        for turn in range(rounds):
            for name, entry in entries.items():
                if entry.error:
                    continue
                progress(f"epoch: round {turn + 1}/{rounds} {name}")
                try:
                    seconds, imports, rss, last = run_once(python, name, data, batch)
                except RuntimeError as failure:
                    entry.error = str(failure)
                    continue
                entry.times.append(1e3 * seconds)
                entry.rss_mb = max(entry.rss_mb, rss)
                known = facts.get(name, (imports, installed_mb(python, name), last))
                facts[name] = (min(imports, known[0]), known[1], last)
    return list(entries.values()), facts


def lines_of(facts):
    """The table of imports and sizes."""
    lines = [f"  {'':12}{'import':>10}{'installed (without numpy)':>28}"]
    for name, (imports, size, last) in facts.items():
        lines.append(f"  {name:12}{imports:8.2f} s{size:25.0f} MB   {last}")
    return lines
