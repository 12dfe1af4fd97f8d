"""Tables, JSON and a chart of what a contest gave."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from datetime import date
from pathlib import Path

OURS = "convlet"


def cpu_name():
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


def commit():
    ran = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    return ran.stdout.strip() or "unknown"


def circumstances(measured):
    """Where and when: part of every record."""
    return {
        "date": date.today().isoformat(),
        "commit": commit(),
        "cpu": cpu_name(),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        **measured,
    }


def best_peer(entries):
    """The fastest entry that is not ours, or None."""
    others = [e for e in entries if e.peer != OURS and not e.error]
    return min(others, key=lambda entry: entry.median, default=None)


def ratio(entries):
    """The best peer's median over ours; None unless both were measured."""
    ours = next((e for e in entries if e.peer == OURS and not e.error), None)
    best = best_peer(entries)
    return best.median / ours.median if ours and best else None


def rows(case, entries, peak_gflops):
    """The lines of one case's table, ours first, then from fast to slow, then the failed."""
    lines = [f"{case['title']}"]
    failed = [e for e in entries if e.error]
    ranked = sorted((e for e in entries if not e.error), key=lambda e: e.median)
    ours = next((e for e in ranked if e.peer == OURS), None)
    for entry in ranked:
        cells = [f"  {entry.name:26}{entry.median:10.3f} ms", f"±{entry.spread:4.0%}"]
        cells.append(f"p99 {entry.p99:9.3f}")
        if case.get("flops"):
            rate = case["flops"] / entry.median / 1e6
            cells.append(f"{rate:7.1f} GFLOP/s {rate / peak_gflops:4.0%} of peak")
        if case.get("bytes"):
            cells.append(f"{case['bytes'] / entry.median / 1e6:6.1f} GB/s")
        if case.get("images"):
            cells.append(f"{case['images'] / entry.median * 1e3:9.0f} images/s")
        if entry.rss_mb:
            cells.append(f"{entry.rss_mb:6.0f} MB")
        if ours and entry is not ours:
            cells.append(f"{entry.median / ours.median:5.2f}x ours")
        lines.append("  ".join(cells))
    lines += [f"  {entry.name:26}failed: {entry.error}" for entry in failed]
    reached = ratio(entries)
    if reached is not None:
        word = "ahead of" if reached > 1 else "BEHIND"
        lines.append(f"  {word} the best peer ({best_peer(entries).name}): {reached:.2f}x")
    return lines


def record(case, entries):
    return {
        **case,
        "ratio": ratio(entries),
        "entries": [
            {"peer": e.peer, "setting": e.setting, "error": e.error}
            if e.error
            else {
                "peer": e.peer,
                "setting": e.setting,
                "error": "",
                "median_ms": e.median,
                "spread": e.spread,
                "p99_ms": e.p99,
                "runs": len(e.times),
                "first_ms": e.first_ms,
                "peak_rss_mb": e.rss_mb,
            }
            for e in entries
        ],
    }


def write_json(path, where, records, versions, missing, command):
    content = {
        "command": command,
        "where": where,
        "versions": versions,
        "missing": missing,
        "cases": records,
    }
    temporary = Path(f"{path}.tmp")
    temporary.write_text(json.dumps(content, indent=1) + "\n")
    temporary.replace(path)


def chart(path, where, records):
    """A bar for each case: how many times faster we are than the best setting of each peer."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot as plt

    shown = [r for r in records if any(e["peer"] == OURS and not e["error"] for e in r["entries"])]
    peers = []
    for r in shown:
        peers += [e["peer"] for e in r["entries"] if e["peer"] not in (*peers, OURS)]
    figure, axes = plt.subplots(figsize=(9, 1.2 + 0.16 * len(shown) * (len(peers) + 1)))
    thick = 0.8 / max(len(peers), 1)
    for k, peer in enumerate(peers):
        for i, r in enumerate(shown):
            times = {True: [], False: []}
            for e in r["entries"]:
                if not e["error"] and e["peer"] in (peer, OURS):
                    times[e["peer"] == OURS].append(e["median_ms"])
            if not times[False]:
                continue
            value = min(times[False]) / min(times[True])
            axes.barh(i + k * thick, value, thick, color=f"C{k}", label=peer if i == 0 else None)
            axes.text(value, i + k * thick, f" {value:.2g}x", va="center", fontsize=7)
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_yticks([i + 0.4 - thick / 2 for i in range(len(shown))], [r["title"] for r in shown])
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlabel(
        "time of the peer at its best setting / time of convlet (right of 1: convlet is faster)"
    )
    axes.set_title(
        f"{where['cpu']}, {where['threads']} threads, {where['isa']}, {where['date']}", fontsize=9
    )
    handles = [plt.Rectangle((0, 0), 1, 1, color=f"C{k}") for k in range(len(peers))]
    axes.legend(handles, peers, fontsize=8, loc="best")
    axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, dpi=130)
