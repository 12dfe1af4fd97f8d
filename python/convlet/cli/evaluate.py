"""`convlet evaluate RUN DATA`."""

from __future__ import annotations

from argparse import Namespace

from convlet.cli.loading import load, unseen
from convlet.cli.objective import objective_of


def run(options: Namespace) -> None:
    """Measure a run's model on the images of DATA that it did not learn from."""
    model, folder = load(options.run_folder)
    objective = objective_of(model)
    source = objective.aligned(options.data, model)
    source, x, digests = source.load(model.preprocessing)
    for line in source.left_out():
        print(line)
    indices, what = unseen(source, digests, folder)
    if len(indices) < len(source):
        left = len(source) - len(indices)
        print(f"{source.name}: {len(source)} images; {left} that the run learned from are left out")
    targets = objective.targets(source, indices)
    print("\n".join(objective.report(what, model, x[indices], targets)))
