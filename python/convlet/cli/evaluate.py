"""`convlet evaluate RUN DATA`."""

from __future__ import annotations

from argparse import Namespace

from convlet.cli.loading import load, unseen
from convlet.cli.measure import accuracy_line, details, predicted_classes
from convlet.data import open_source


def run(options: Namespace) -> None:
    """Measure a run's model on the images of DATA that it did not learn from."""
    model, folder = load(options.run_folder)
    source = open_source(options.data).aligned_to(model.class_names)
    source, x, digests = source.load(model.preprocessing)
    for line in source.left_out():
        print(line)
    indices, what = unseen(source, digests, folder)
    if len(indices) < len(source):
        left = len(source) - len(indices)
        print(f"{source.name}: {len(source)} images; {left} that the run learned from are left out")
    labels, predicted = source.labels[indices], predicted_classes(model, x[indices])
    print(accuracy_line(what, labels, predicted))
    print("\n".join(details(labels, predicted, model.class_names)))
