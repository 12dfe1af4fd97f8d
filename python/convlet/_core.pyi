"""Types of the compiled module. Arrays are numpy; convlet.ops has the functional ops for users."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
F32 = NDArray[np.float32]
Pair = tuple[int, int]
Precision = Literal["float32", "tf32", "bfloat16"]
Padding = Literal["valid", "same"] | tuple[Pair, Pair]

__version__: str

# Threads and instruction sets.
def num_threads() -> int: ...
def set_num_threads(n: int) -> None: ...
def cpu_limits() -> tuple[int, float]: ...  # CPUs of the affinity mask, quota of the control groups
def isa() -> str: ...
def supported_isas() -> list[str]: ...
def set_isa(name: str) -> None: ...
def use_kernels(kernels: Any) -> None: ...
def set_bfloat16(source: Literal["measured", "native", "emulated"]) -> None: ...
def resize_bilinear(x: NDArray[np.uint8], out: NDArray[np.uint8]) -> None: ...
def set_op_device(device: str) -> None: ...  # this thread's ops with arrays of the host, for tests
def op_device() -> str: ...
def load_device(path: str) -> str: ...  # adds a device for tests; its name
def fma_peak() -> float: ...  # GFLOP/s of multiply-adds in registers, on num_threads() threads
def device_description(device: Literal["cpu", "cuda"], precision: Precision = "float32") -> str: ...
def set_op_precision(precision: Precision) -> None: ...  # for tests
def check_precision(device: Literal["cpu", "cuda"], precision: Precision) -> None: ...

# Arrays in a GPU's memory, for ops (see _cuda_arrays.py).
class DeviceArray:
    device: str
    stream: int
    pointer: int
    dtype: str
    shape: tuple[int, ...]
    ndim: int
    strides: Sequence[int] | None  # None: C-contiguous
    owner: Any  # the array of its library
    def __init__(
        self,
        device: str,
        stream: int,
        pointer: int,
        dtype: str,
        shape: Sequence[int],
        strides: Sequence[int] | None,
        writeable: bool,
        owner: Any,
        empty: Any,  # empty(like: DeviceArray, shape, dtype name) -> DeviceArray
    ) -> None: ...
    @staticmethod
    def from_capsule(capsule: Any, device: str, stream: int, empty: Any) -> DeviceArray: ...
    @staticmethod
    def own(
        device: str, stream: int, shape: Sequence[int], dtype: str, empty: Any
    ) -> DeviceArray: ...
    def numpy(self) -> Array: ...  # a copy
    def copy_from(self, values: Array) -> None: ...
    def scalar(self, value: float) -> DeviceArray: ...
    def __dlpack__(
        self,
        *,
        stream: int | None = None,
        max_version: Any = None,
        dl_device: Any = None,
        copy: Any = None,
    ) -> Any: ...
    def __dlpack_device__(self) -> tuple[int, int]: ...

class Recording:
    def replay(self) -> None: ...

def record(device: str, calls: Any) -> Recording | None: ...
def wait(device: str) -> None: ...
def own_stream(device: str) -> int: ...
def sees(device: str, pointer: int) -> bool: ...

# Functional ops: numpy arrays in, a numpy array out (`out` when given); or DeviceArrays.
def conv2d(
    x: F32,
    weight: F32,
    bias: F32 | None,
    stride: Pair,
    padding: Padding,
    dilation: Pair,
    groups: int,
    activation: str,
    precision: str,
    out: F32 | None,
) -> F32: ...
def conv2d_backward_input(
    dy: F32,
    weight: F32,
    input_shape: Sequence[int],
    stride: Pair,
    padding: Padding,
    dilation: Pair,
    groups: int,
    precision: str,
    out: F32 | None,
) -> F32: ...
def conv2d_backward_weight(
    dy: F32,
    x: F32,
    kernel_size: Pair,
    stride: Pair,
    padding: Padding,
    dilation: Pair,
    groups: int,
    precision: str,
    out: F32 | None,
) -> F32: ...
def conv2d_backward_bias(dy: F32, out: F32 | None) -> F32: ...
def max_pool2d(
    x: F32,
    pool_size: Pair,
    stride: Pair,
    padding: Padding,
    dilation: Pair,
    ceil_mode: bool,
    out: F32 | None,
) -> F32: ...
def max_pool2d_backward(
    dy: F32,
    x: F32,
    pool_size: Pair,
    stride: Pair,
    padding: Padding,
    dilation: Pair,
    ceil_mode: bool,
    out: F32 | None,
) -> F32: ...
def avg_pool2d(
    x: F32,
    pool_size: Pair,
    stride: Pair,
    padding: Padding,
    ceil_mode: bool,
    count_include_pad: bool,
    out: F32 | None,
) -> F32: ...
def avg_pool2d_backward(
    dy: F32,
    input_shape: Sequence[int],
    pool_size: Pair,
    stride: Pair,
    padding: Padding,
    ceil_mode: bool,
    count_include_pad: bool,
    out: F32 | None,
) -> F32: ...
def dense(
    x: F32, weight: F32, bias: F32 | None, activation: str, precision: str, out: F32 | None
) -> F32: ...
def dense_backward(dy: F32, x: F32, weight: F32, precision: str) -> tuple[F32, F32, F32]: ...
def activation(name: str, x: F32, alpha: float | None, out: F32 | None) -> F32: ...
def activation_backward(
    name: str, dy: F32, y_or_x: F32, alpha: float | None, out: F32 | None
) -> F32: ...
def softmax(x: F32, out: F32 | None) -> F32: ...
def log_softmax(x: F32, out: F32 | None) -> F32: ...
def softmax_backward(dy: F32, y: F32, out: F32 | None) -> F32: ...
def log_softmax_backward(dy: F32, y: F32, out: F32 | None) -> F32: ...
def softmax_cross_entropy(
    logits: F32,
    labels: Array,
    class_weight: F32 | None,
    label_smoothing: float,
    ignore_index: int | None,
    reduction: str,
    return_grad: bool,
    focal_gamma: float = 0.0,
) -> Any: ...
def elementwise_loss(
    kind: str,
    prediction: F32,
    target: F32,
    label_smoothing: float,
    reduction: str,
    return_grad: bool,
    focal_gamma: float = 0.0,
    focal_alpha: float | None = None,
) -> Any: ...
def dropout(
    x: F32,
    rate: float,
    seed: int,
    step: int,
    stream: int,
    noise: Literal["element", "channel", "sample"],
    out: F32 | None,
) -> F32: ...
def attention(
    q: F32,
    k: F32,
    v: F32,
    heads: int,
    scale: float | None,
    causal: bool,
    rate: float,
    seed: int,
    step: int,
    stream: int,
    out: F32 | None,
    keep: bool = False,
) -> F32 | tuple[F32, F32]: ...
def attention_backward(
    dy: F32,
    q: F32,
    k: F32,
    v: F32,
    heads: int,
    scale: float | None,
    causal: bool,
    rate: float,
    seed: int,
    step: int,
    stream: int,
    y: F32 | None = None,
    lse: F32 | None = None,
) -> tuple[F32, F32, F32]: ...
def recurrent(
    cell: str,
    x: F32,
    kernel: F32,
    recurrent_kernel: F32,
    bias: F32 | None,
    return_sequences: bool,
    go_backwards: bool,
    out: F32 | None,
    keep: bool = False,
) -> F32 | tuple[F32, F32, F32]: ...
def recurrent_backward(
    cell: str,
    dy: F32,
    x: F32,
    kernel: F32,
    recurrent_kernel: F32,
    bias: F32 | None,
    return_sequences: bool,
    go_backwards: bool,
    gates: F32 | None = None,
    previous: F32 | None = None,
) -> tuple[F32, F32, F32, F32 | None]: ...
def augment(
    settings: dict[str, Any],
    x: Array,
    rows: NDArray[np.int64] | None,
    indices: NDArray[np.int64] | None,
    seed: int,
    epoch: int,
    stream: int,
    scale: F32 | None,
    offset: F32 | None,
    dtype: Literal["float32", "uint8"],
    out: Array | None,
) -> Array: ...
def augment_draws(
    settings: dict[str, Any],
    image_shape: Sequence[int],
    indices: NDArray[np.int64],
    seed: int,
    epoch: int,
    stream: int,
) -> list[dict[str, Any]]: ...
def batch_norm(
    x: F32,
    gamma: F32 | None,
    beta: F32 | None,
    mean: F32 | None,
    var: F32 | None,
    training: bool,
    momentum: float,
    epsilon: float,
    out: F32 | None,
) -> F32: ...
def batch_norm_backward(
    dy: F32,
    x: F32,
    gamma: F32 | None,
    mean: F32 | None,
    var: F32 | None,
    training: bool,
    epsilon: float,
) -> tuple[F32, F32, F32]: ...
def unary(function: str, x: F32, out: F32 | None) -> F32: ...
def unary_backward(function: str, dy: F32, y_or_x: F32, out: F32 | None) -> F32: ...
def binary(function: str, a: F32, b: F32, out: F32 | None) -> F32: ...
def binary_backward(function: str, side: int, dy: F32, a: F32, b: F32) -> F32: ...
def where(condition: F32, a: F32, b: F32, out: F32 | None) -> F32: ...
def reduce(function: str, x: F32, axes: Sequence[int], keepdims: bool, out: F32 | None) -> F32: ...
def reduce_backward(function: str, dy: F32, x: F32, y: F32, axes: Sequence[int]) -> F32: ...
def transpose(x: F32, axes: Sequence[int], out: F32 | None) -> F32: ...
def matmul(
    a: F32, b: F32, transpose_a: bool, transpose_b: bool, precision: str, out: F32 | None
) -> F32: ...
def one_hot(labels: Array, classes: int, out: F32 | None) -> F32: ...
def upsample2d(x: F32, size: Pair, interpolation: str, out: F32 | None) -> F32: ...
def upsample2d_backward(dy: F32, size: Pair, interpolation: str, out: F32 | None) -> F32: ...
def layer_norm(
    x: F32, gamma: F32 | None, beta: F32 | None, axes: int, epsilon: float, out: F32 | None
) -> F32: ...
def layer_norm_backward(
    dy: F32, x: F32, gamma: F32 | None, axes: int, epsilon: float
) -> tuple[F32, F32, F32]: ...
def group_norm(
    x: F32, gamma: F32 | None, beta: F32 | None, groups: int, epsilon: float, out: F32 | None
) -> F32: ...
def group_norm_backward(
    dy: F32, x: F32, gamma: F32 | None, groups: int, epsilon: float
) -> tuple[F32, F32, F32]: ...
def instance_norm(
    x: F32, gamma: F32 | None, beta: F32 | None, epsilon: float, out: F32 | None
) -> F32: ...
def instance_norm_backward(
    dy: F32, x: F32, gamma: F32 | None, epsilon: float
) -> tuple[F32, F32, F32]: ...
def optimizer_update(
    spec: dict[str, Any], learning_rate: float, t: int, p: F32, g: F32, state: Sequence[F32]
) -> None: ...

class Graph:
    """A model before it is compiled; shapes are per sample."""
    def __init__(self) -> None: ...
    def input(self, name: str, shape: Sequence[int]) -> int: ...
    def target(self, name: str, shape: Sequence[int]) -> int: ...
    def parameter(
        self,
        name: str,
        shape: Sequence[int],
        trainable: bool = True,
        l1: float = 0.0,
        l2: float = 0.0,
        rate_scale: float = 1.0,
        weight_decay: bool = True,
    ) -> int: ...
    def node(
        self,
        op: str,
        name: str,
        inputs: Sequence[int],
        parameters: Sequence[int] = (),
        attributes: dict[str, Any] = {},
    ) -> int: ...
    def output(self, value: int) -> None: ...
    def shape(self, value: int) -> tuple[int, ...]: ...
    def parameter_shape(self, parameter: int) -> tuple[int, ...]: ...

class State:
    """Parameters, gradients and optimizer state of a graph on a device."""
    def __init__(self, graph: Graph, device: str | None = None) -> None: ...
    def get(self, parameter: int) -> F32: ...
    def set(self, parameter: int, values: F32) -> None: ...
    def gradient(self, parameter: int) -> F32: ...
    def set_optimizer(self, spec: dict[str, Any]) -> None: ...
    def slot_names(self) -> list[str]: ...
    def get_slot(self, slot: int, parameter: int) -> F32: ...
    def set_slot(self, slot: int, parameter: int, values: F32) -> None: ...
    batches: int  # trained on since set_optimizer
    updates: int  # made of them

class Dataset:
    """Samples in a device's memory, for Plan.start_from."""
    def __init__(
        self, device: str, inputs: Sequence[Array], targets: Sequence[Array] = ()
    ) -> None: ...
    def set_order(self, rows: NDArray[np.int64]) -> None: ...
    def set_weights(self, loss: int, weights: F32 | None = None) -> None: ...

class Outputs:
    """Outputs of plans on their way from a device."""
    def __init__(self, device: str) -> None: ...
    def take(self, arrays: Sequence[F32]) -> None:
        """Waits for the next outputs that were sent, and writes them into `arrays`."""

def free_memory(device: str) -> int:
    """Bytes of a device's memory that could be allocated; 0 where unknown."""

class Plan:
    """A graph compiled for a largest batch. Runs with the GIL released."""
    def __init__(
        self,
        graph: Graph,
        state: State,
        mode: Literal["predict", "test", "train"],
        batch: int,
        losses: Sequence[dict[str, Any]] = (),
        metrics: Sequence[dict[str, Any]] = (),
        fuse: bool = True,
        seed: int = 0,
        precision: Precision = "float32",
        winograd: bool | None = None,
    ) -> None: ...
    def run(
        self,
        inputs: Sequence[Array],
        targets: Sequence[Array] = (),
        weights: Sequence[F32 | None] = (),
        indices: NDArray[np.int64] | None = None,
        learning_rate: float = 0.0,
    ) -> NDArray[np.float64]: ...
    def start(
        self,
        inputs: Sequence[Array],
        targets: Sequence[Array] = (),
        weights: Sequence[F32 | None] = (),
        indices: NDArray[np.int64] | None = None,
        learning_rate: float = 0.0,
    ) -> int:
        """As `run`, whose results `finish` gives: a GPU works while the host goes on."""
    def start_from(self, dataset: Dataset, first: int, n: int, learning_rate: float = 0.0) -> int:
        """`start` with n rows from place `first` of the data set's order."""
    def finish(self, step: int) -> NDArray[np.float64]:
        """The results of the step that `start` numbered: empty if one before it was not finite."""
    def send_outputs(self, to: Outputs) -> None:
        """Puts the outputs of the last batch on their way."""
    def predict(
        self, inputs: Sequence[Array], indices: NDArray[np.int64] | None = None
    ) -> list[F32]: ...
    def output(self, i: int) -> F32: ...
    def first_non_finite(self) -> str: ...
    def memory(self) -> dict[str, int]: ...
    def time_steps(self) -> None: ...
    def steps(self) -> list[dict[str, str | float]]: ...
    def blocks(self) -> list[dict[str, int]]: ...
