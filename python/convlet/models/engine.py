"""Engine: a model's graph and state on a device, and its plans."""

import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convlet import _core
from convlet.layers.variable import Variable
from convlet.models.compilation import OutputLoss
from convlet.models.data import Batch
from convlet.models.lowering import Lowering
from convlet.models.resident import resident
from convlet.models.traced_loss import lower_loss

Array = NDArray[Any]


# Steps that a GPU is given before the host looks at the result of the first of them.
_AHEAD = 2


class Engine:
    """The compiled side of a model. One plan per mode: it takes any batch up to its capacity and is
    made anew when a larger one comes. The lock makes calls from several threads take turns.

    Args:
        losses: of the user's, to be traced.
        precision: of the kernels, in every mode.
        winograd: the modes that may use Winograd's convolution, as in Model.compile.
    """

    def __init__(
        self,
        model: Any,
        device: str,
        seed: int,
        optimizer: Any = None,
        losses: Sequence[OutputLoss] = (),
        precision: str = "float32",
        winograd: str = "inference",
    ):
        self.graph = _core.Graph()
        groups = {} if optimizer is None else {"decays": optimizer.decays}
        lowering = Lowering(self.graph, model, **groups)
        inputs = [lowering.input(t.name, t.sample_shape) for t in model.inputs]
        outputs = model.lower_network(lowering, inputs)
        for value in outputs:
            lowering.output(value)
        self._loss_values = {
            loss.output: lower_loss(lowering, loss, model.output_names, outputs) for loss in losses
        }
        self.parameters = lowering.parameters
        if optimizer is not None:
            optimizer.check_exclusions([parameter.name for parameter in self.parameters])
        self.device = device
        self.ahead = 0 if device == "cpu" else _AHEAD
        self.state = _core.State(self.graph, device)
        self.lock = threading.RLock()
        self.averaged = False
        self._claimed = -1  # the count of moves at which all weights were here
        self._options = {"seed": seed, "precision": precision}
        self._winograd = "never" if os.environ.get("CONVLET_WINOGRAD") == "0" else winograd
        self._plans: dict[str, tuple[int, Any]] = {}
        self._losses: list[dict[str, Any]] = []
        self._metrics: list[dict[str, Any]] = []

    def configure(
        self, optimizer: Any, losses: list[dict[str, Any]], metrics: list[dict[str, Any]]
    ) -> None:
        """Sets what test and train plans compute, and a fresh optimizer."""
        self._losses = [spec | self._loss_values.get(spec["output"], {}) for spec in losses]
        self._metrics = metrics
        self._plans = {mode: plan for mode, plan in self._plans.items() if mode == "predict"}
        optimizer.bind(self.state)
        self.averaged = False

    @property
    def trains(self) -> bool:
        """Whether it can make plans that train: not while a loss of the user's is not traced."""
        return all(spec["kind"] != "value" or "value" in spec for spec in self._losses)

    def plan(self, mode: str, batch: int) -> Any:
        """A plan for batches of up to ``batch`` samples."""
        capacity, plan = self._plans.get(mode, (0, None))
        if capacity < batch:
            self._plans.pop(mode, None)
            del plan  # its memory is free before the larger one is placed
            plan = self.new_plan(mode, batch)
            self._plans[mode] = (batch, plan)
        return plan

    def new_plan(self, mode: str, batch: int) -> Any:
        """A plan of the caller's own."""
        computed = () if mode == "predict" else (self._losses, self._metrics)
        winograd = self._winograd == "always" or (self._winograd == "inference" and mode != "train")
        return _core.Plan(
            self.graph, self.state, mode, batch, *computed, winograd=winograd, **self._options
        )

    def claim(self) -> None:
        """Makes this state the home of all weights: another model that shares layers may have
        trained them since the last call."""
        moves = Variable.moves
        if self._claimed == moves:
            return
        for parameter in self.parameters:
            if parameter.variable.state is not self.state:
                parameter.variable.move_to(self.state, parameter.id)
        self._claimed = moves

    def capacity(self, mode: str) -> int:
        """The largest batch that the plan for ``mode`` takes; 0 when there is no plan yet."""
        return self._plans.get(mode, (0, None))[0]

    def start(
        self, mode: str, batch: Batch, capacity: int, learning_rate: float = 0.0
    ) -> Callable[[], NDArray[np.float64]]:
        """Starts a train or test step with a plan for at least ``capacity`` samples. A GPU works on
        while the host does something else; the arrays are free.

        Returns:
            What gives its results, once: [total, losses..., metrics...]. When the total of a train
            step is not finite, it has changed nothing; steps after it have not happened, and their
            results are empty.
        """
        if mode == "train":
            self.use_average(False)
        samples, rows = batch.samples, batch.rows
        plan = self.plan(mode, max(capacity, len(rows)))
        self.claim()
        data = self._resident(batch, capacity)
        if data is not None:
            step = plan.start_from(data, batch.first, len(rows), learning_rate)
        else:
            weights = samples.step_weights(rows)
            step = plan.start(samples.inputs, samples.targets, weights, rows, learning_rate)
        return partial(plan.finish, step)

    def _resident(self, batch: Batch, batch_size: int) -> Any:
        """The data set on the device that a batch is of, if there is one."""
        samples = batch.samples
        if self.device == "cpu" or batch.order is None or samples.resident is False:
            return None
        if samples.resident is None or samples.resident.device != self.device:
            samples.resident = resident(self.device, samples) or False
        return samples.resident.in_order(batch.order, batch_size) if samples.resident else None

    def output(self, mode: str, i: int) -> NDArray[np.float32]:
        """Output ``i`` of the last batch."""
        return self._plans[mode][1].output(i)

    def first_non_finite(self, mode: str) -> str:
        """Where the last batch first stopped being finite."""
        return self._plans[mode][1].first_non_finite()

    def predict(
        self,
        inputs: Sequence[Array],
        outputs: Sequence[Array],
        batch: int,
        begin: Callable[[], None] | None = None,
    ) -> Iterator[slice]:
        """Fills ``outputs`` (N, ...) from ``inputs`` (N, ...), ``batch`` samples at a time, and
        gives the rows of each batch when they are there. ``begin`` is called before each batch,
        which then waits for the one before."""
        count = len(inputs[0])
        batches = [slice(i, min(i + batch, count)) for i in range(0, count, batch)]
        if self.ahead and begin is None and len(batches) > 1:
            yield from self._predict_ahead(inputs, outputs, batches)
            return
        for rows in batches:
            if begin is not None:
                begin()
            results = self.predict_batch([x[rows] for x in inputs], min(batch, count))
            for output, result in zip(outputs, results, strict=True):
                output[rows] = result
            yield rows

    def _predict_ahead(
        self, inputs: Sequence[Array], outputs: Sequence[Array], batches: Sequence[slice]
    ) -> Iterator[slice]:
        under_way: deque[slice] = deque()
        sent = _core.Outputs(self.device)
        for rows in [*batches, *[None] * self.ahead]:
            if rows is not None:
                with self.lock:
                    plan = self.plan("predict", batches[0].stop)
                    self.claim()
                    plan.start([x[rows] for x in inputs])
                    plan.send_outputs(sent)
                under_way.append(rows)
            if rows is None or len(under_way) > self.ahead:
                done = under_way.popleft()
                sent.take([output[done] for output in outputs])
                yield done

    def predict_batch(self, inputs: Sequence[Array], capacity: int = 1) -> list[Array]:
        """The outputs for all samples of ``inputs``, as one batch of a plan that takes at least
        ``capacity``."""
        with self.lock:
            plan = self.plan("predict", max(capacity, len(inputs[0])))
            self.claim()
            return plan.predict(inputs)

    # The running average of the trainable weights, where the optimizer keeps one. ``averaged`` says
    # whether it is in the weights' place at the moment, and they in its.

    def use_average(self, wanted: bool) -> None:
        """Lets weights and average change places, if need be. Before the first update there is no
        average, and nothing happens."""
        with self.lock:
            if wanted == self.averaged or self.state.updates == 0:
                return
            self.claim()
            slot = self.state.slot_names().index("average")
            ids = [parameter.id for parameter in self.parameters if parameter.trainable]
            pairs = [(i, self.state.get(i), self.state.get_slot(slot, i)) for i in ids]
            try:
                for i, values, others in pairs:
                    self.state.set_slot(slot, i, values)
                    self.state.set(i, others)
                self.averaged = wanted
            except BaseException:  # Ctrl-C: all or none
                for i, values, others in pairs:
                    self.state.set_slot(slot, i, others)
                    self.state.set(i, values)
                self.averaged = not wanted
                raise

    def keep_average(self) -> None:
        """The weights become their average."""
        with self.lock:
            self.use_average(True)
            if not self.averaged:
                return
            slot = self.state.slot_names().index("average")
            for parameter in self.parameters:
                if parameter.trainable:
                    self.state.set_slot(slot, parameter.id, self.state.get(parameter.id))
            self.averaged = False

    # The optimizer's slots, for saving.

    def slots(self) -> dict[str, NDArray[np.float32]]:
        """{"slot/parameter name": values} of the trainable parameters."""
        names = self.state.slot_names()
        return {
            f"{slot}/{parameter.name}": self.state.get_slot(i, parameter.id)
            for i, slot in enumerate(names)
            for parameter in self.parameters
            if parameter.trainable
        }

    def set_slots(self, values: dict[str, NDArray[np.float32]]) -> None:
        for i, slot in enumerate(self.state.slot_names()):
            for parameter in self.parameters:
                if parameter.trainable:
                    self.state.set_slot(i, parameter.id, values[f"{slot}/{parameter.name}"])


def resolve_precision(precision: Any, device: str) -> str:
    """The precision, when the device has it; else ValueError with the reason and the fix."""
    if precision not in ("float32", "tf32", "bfloat16"):
        raise ValueError(
            f"compile: precision: expected 'float32', 'tf32' or 'bfloat16', got {precision!r}"
        )
    try:
        _core.check_precision(device, precision)
    except ValueError as error:
        raise ValueError(f"compile: {error}") from None
    return precision


def resolve_winograd(winograd: Any) -> str:
    """The setting; ValueError when it is none."""
    if winograd not in ("never", "inference", "always"):
        raise ValueError(
            f"compile: winograd: expected 'never', 'inference' or 'always', got {winograd!r}"
        )
    return str(winograd)
