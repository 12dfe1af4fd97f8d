"""The memory of whole training steps: how much more than what is alive at once they take."""

import pytest
from bench import networks
from bench.peers import convlet as peer

from convlet import _core

BATCHES = {"M1": (32, 128), "M2": (32, 128), "M3": (32, 128), "M4": (32,), "M5": (32, 128)}


@pytest.fixture
def two_threads():
    before = _core.num_threads()
    _core.set_num_threads(2)
    yield
    _core.set_num_threads(before)


@pytest.mark.parametrize("name", [*BATCHES, "M6"])
def test_the_arena_is_close_to_what_is_alive_at_once(name, two_threads):
    """With the kernels' workspace, which more threads need more of."""
    network = networks.NETWORKS[name]
    model = peer.model_of(network, networks.weights(network))
    for batch in BATCHES.get(name, (8,)):
        memory = model._engine().plan("train", batch).memory()
        assert memory["activations"] + memory["workspace"] <= 1.3 * memory["live_set"]
