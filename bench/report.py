"""Tables, JSON and a chart of what a contest gave."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from datetime import date
from pathlib import Path

from bench.peers import precision_of

OURS = "convlet"


def cpu_name():
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


def commit():
    try:
        ran = subprocess.run(
            ["git", "describe", "--always", "--dirty"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError:  # no git
        return "unknown"
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
    return min(others, key=_median, default=None)


def ratio(entries):
    """The best peer's median over our best; None unless both were measured."""
    ours = min((e for e in entries if e.peer == OURS and not e.error), key=_median, default=None)
    best = best_peer(entries)
    return best.median / ours.median if ours and best else None


def p99_ratio(entries):
    """The same of the 99th percentiles, where there are runs enough for them."""
    often = [e for e in entries if len(e.times) >= 100 and not e.error]
    ours, theirs = ([e.p99 for e in often if (e.peer == OURS) == own] for own in (True, False))
    return min(theirs) / min(ours) if ours and theirs else None


def _median(entry):
    return entry.median


def share(rate, ceiling):
    """The percentage, with a space before it; nothing where the ceiling was not measured."""
    return f" {rate / ceiling:4.0%}" if ceiling else ""


def peak_of(where, setting):
    """The ceiling of arithmetic for a setting, in GFLOP/s; None where it was not measured."""
    return where.get("fma_gflops") or where.get("gflops", {}).get(precision_of(setting))


def arithmetic(rate, ceiling):
    """A rate in GFLOP/s, or TFLOP/s where that reads better, with its share."""
    shown = f"{rate:7.1f} GFLOP/s" if rate < 1e4 else f"{rate / 1e3:7.1f} TFLOP/s"
    return f"{shown}{share(rate, ceiling)}"


def rows(case, entries, where):
    """The lines of one case's table, from fast to slow, then the failed. ``where`` may hold the
    ceilings "fma_gflops", or "gflops" by precision, and "memory_gb_s"."""
    lines = [f"{case['title']}"]
    failed = [e for e in entries if e.error]
    width = max([26, *(len(e.name) + 1 for e in entries)])
    ranked = sorted((e for e in entries if not e.error), key=_median)
    ours = next((e for e in ranked if e.peer == OURS), None)
    for entry in ranked:
        cells = [f"  {entry.name:{width}}{entry.median:10.3f} ms", f"±{entry.spread:4.0%}"]
        cells.append(f"p99 {entry.p99:9.3f}")
        if case.get("flops"):
            rate = case["flops"] / entry.median / 1e6
            cells.append(arithmetic(rate, peak_of(where, entry.setting)))
        if case.get("bytes"):
            rate = case["bytes"] / entry.median / 1e6
            cells.append(f"{rate:6.1f} GB/s{share(rate, where.get('memory_gb_s'))}")
        if case.get("images"):
            cells.append(f"{case['images'] / entry.median * 1e3:9.0f} images/s")
        if entry.rss_mb:
            cells.append(f"{entry.rss_mb:6.0f} MB")
        if ours and entry is not ours:
            cells.append(f"{entry.median / ours.median:5.2f}x ours")
        lines.append("  ".join(cells))
    lines += [f"  {entry.name:{width}}failed: {entry.error}" for entry in failed]
    reached = ratio(entries)
    if reached is not None:
        word = "ahead of" if reached > 1 else "BEHIND"
        late = p99_ratio(entries)
        of_p99 = f"; by p99 {late:.2f}x the best one's" if late is not None else ""
        lines.append(f"  {word} the best peer ({best_peer(entries).name}): {reached:.2f}x{of_p99}")
    return lines


def record(case, entries):
    return {
        **case,
        "ratio": ratio(entries),
        "p99_ratio": p99_ratio(entries),
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


AHEAD, BEHIND = "#2f7ebc", "#c44536"


def chart(path, where, records):
    """A bar for each case: how many times faster we are than the best setting of the best peer."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot as plt

    shown = [r for r in records if r["ratio"] is not None]
    figure, axes = plt.subplots(figsize=(9, 1.2 + 0.27 * len(shown)))
    for i, r in enumerate(shown):
        best = min(
            (e for e in r["entries"] if e["peer"] != OURS and not e["error"]),
            key=lambda e: e["median_ms"],
        )
        name = best["peer"] if best["setting"] == "default" else f"{best['peer']} {best['setting']}"
        axes.barh(i, r["ratio"] - 1, 0.7, left=1, color=AHEAD if r["ratio"] >= 1 else BEHIND)
        where_text = max(r["ratio"], 1)
        axes.text(where_text, i, f" {r['ratio']:.2f}x   {name}", va="center", fontsize=7)
    largest = max((r["ratio"] for r in shown), default=1)
    axes.set_xlim(min([r["ratio"] for r in shown] + [0.9]) - 0.1, largest * 1.35)
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_yticks(range(len(shown)), [r["title"] for r in shown], fontsize=8)
    axes.set_ylim(len(shown) - 0.4, -0.6)
    axes.set_xlabel("time of the best peer, named at the bar / time of convlet (above 1: faster)")
    chip = f"{where['cpu']}, {where['threads']} threads, {where['isa']}, {where['date']}"
    axes.set_title(chip, fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, dpi=130)
