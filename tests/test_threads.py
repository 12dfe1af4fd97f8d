"""The thread pool and the instruction sets: same bits, no hang, no spinning, clear errors."""

import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from convlet import _core, ops
from reference import floats


def run(script, timeout=60, **environment):
    """A fresh interpreter that runs the script: its output, once it has ended by itself."""
    return subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


IMAGE, GRADIENT, WINDOW = floats(4, 17, 19, 33), floats(4, 17, 19, 40), floats(3, 3, 33, 40)
ROWS, LABELS = floats(513, 99), np.arange(513) % 99
MANY = floats(200_003)
POOLED = ops.max_pool2d(IMAGE)

# Large enough that every op is cut into parts, with sizes that no vector or tile divides.
OPS = {
    "conv2d": lambda: ops.conv2d(IMAGE, WINDOW, floats(40), padding=1, activation="gelu"),
    "conv2d_grouped": lambda: ops.conv2d(IMAGE, floats(3, 2, 11, 36), stride=2, groups=3),
    "conv2d_depthwise": lambda: ops.conv2d(IMAGE, floats(3, 3, 1, 33), groups=33),
    "conv2d_backward_input": lambda: ops.conv2d_backward_input(
        GRADIENT, WINDOW, IMAGE.shape, padding=1
    ),
    "conv2d_backward_weight": lambda: ops.conv2d_backward_weight(GRADIENT, IMAGE, 3, padding=1),
    "conv2d_backward_bias": lambda: ops.conv2d_backward_bias(GRADIENT),
    "dense": lambda: ops.dense(ROWS, floats(99, 131), floats(131)),
    "dense_backward": lambda: ops.dense_backward(floats(513, 131), ROWS, floats(99, 131)),
    "max_pool2d": lambda: ops.max_pool2d(IMAGE, 3, stride=2),
    "max_pool2d_backward": lambda: ops.max_pool2d_backward(floats(*POOLED.shape), IMAGE),
    "avg_pool2d": lambda: ops.avg_pool2d(IMAGE, 3, stride=2, padding=1),
    "avg_pool2d_backward": lambda: ops.avg_pool2d_backward(floats(*POOLED.shape), IMAGE.shape),
    "gelu": lambda: ops.gelu(MANY),
    "tanh_backward": lambda: ops.tanh_backward(MANY, ops.tanh(MANY)),
    "softmax": lambda: ops.softmax(ROWS),
    "log_softmax_backward": lambda: ops.log_softmax_backward(ROWS, ops.log_softmax(ROWS)),
    "softmax_cross_entropy": lambda: ops.softmax_cross_entropy(ROWS, LABELS, return_grad=True),
    "sigmoid_cross_entropy": lambda: ops.sigmoid_cross_entropy(
        ROWS, abs(ROWS) % 1, return_grad=True
    ),
    "mean_squared_error": lambda: ops.mean_squared_error(MANY, abs(MANY), return_grad=True),
    "dropout": lambda: ops.dropout(MANY, 0.3, seed=5),
    "add": lambda: ops.add(MANY, abs(MANY)),
    "multiply": lambda: ops.multiply(MANY, abs(MANY)),
}


def bits(result):
    parts = result if isinstance(result, tuple) else (result,)
    return b"".join(np.ascontiguousarray(part).tobytes() for part in parts)


@pytest.fixture
def keep_threads():
    before = _core.num_threads()
    yield
    _core.set_num_threads(before)


@pytest.mark.usefixtures("keep_threads", "isa")
@pytest.mark.parametrize("name", OPS)
def test_every_op_gives_the_same_bits_for_any_number_of_threads(name):
    results = []
    for threads in (1, 2, 5, 2):
        _core.set_num_threads(threads)
        results.append(bits(OPS[name]()))
    assert len(set(results)) == 1


@pytest.mark.usefixtures("keep_threads")
def test_set_num_threads():
    _core.set_num_threads(3)
    assert _core.num_threads() == 3
    for wrong in (0, -1, 1025):
        with pytest.raises(ValueError, match=f"threads: expected a number from 1 to 1024.*{wrong}"):
            _core.set_num_threads(wrong)
    assert _core.num_threads() == 3


@pytest.mark.usefixtures("keep_threads")
def test_threads_that_call_at_once_get_the_same_bits():
    """One caller has the workers, the others compute alone, while the number of threads changes."""
    _core.set_num_threads(2)
    names = list(OPS)[:10] * 3
    expected = {name: bits(OPS[name]()) for name in names}
    stop = threading.Event()

    def change_threads():
        while not stop.is_set():
            for n in (1, 4, 2, 7):
                _core.set_num_threads(n)
                time.sleep(0.001)

    changer = threading.Thread(target=change_threads)
    changer.start()
    try:
        with ThreadPoolExecutor(4) as pool:
            results = list(pool.map(lambda name: (name, bits(OPS[name]())), names))
    finally:
        stop.set()
        changer.join()
    assert all(result == expected[name] for name, result in results)


def test_a_forked_child_computes_while_the_parent_goes_on():
    script = """
import os, threading, warnings
import numpy as np
from convlet import _core, ops
warnings.simplefilter("ignore")  # Python warns of forking with threads: that is what is tested
_core.set_num_threads(4)
rng = np.random.default_rng(0)
x, w = (rng.standard_normal(s).astype(np.float32) for s in ((8, 16, 16, 8), (3, 3, 8, 16)))
expected = ops.conv2d(x, w)
stop = threading.Event()
def compute():
    while not stop.is_set():
        ops.conv2d(x, w)
other = threading.Thread(target=compute)
other.start()
for i in range(10):
    child = os.fork()
    if child == 0:
        same = all((ops.conv2d(x, w) == expected).all() for _ in range(3))
        grandchild = os.fork()
        if grandchild == 0:
            os._exit(0 if (ops.conv2d(x, w) == expected).all() else 1)
        same = same and os.waitpid(grandchild, 0)[1] == 0
        os._exit(0 if same else 1)
    assert os.waitpid(child, 0)[1] == 0
stop.set()
other.join()
assert (ops.conv2d(x, w) == expected).all()
print("done")
"""
    result = run(script)
    assert (result.returncode, result.stdout, result.stderr) == (0, "done\n", "")


@pytest.mark.parametrize("target", ["pass", "while True: ops.conv2d(x, w)"])
def test_the_interpreter_ends_while_workers_and_daemon_threads_compute(target):
    script = f"""
import threading, time
import numpy as np
from convlet import _core, ops
_core.set_num_threads(4)
x, w = np.ones((8, 32, 32, 16), np.float32), np.ones((3, 3, 16, 32), np.float32)
ops.conv2d(x, w)
def compute():
    {target}
for _ in range(3):
    threading.Thread(target=compute, daemon=True).start()
time.sleep(0.05)
"""
    result = run(script, timeout=30)
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.usefixtures("keep_threads")
def test_nothing_spins_between_calls():
    _core.set_num_threads(4)
    ops.relu(MANY)
    time.sleep(0.01)
    before = time.process_time()
    time.sleep(0.5)
    assert time.process_time() - before < 0.05


@pytest.mark.usefixtures("keep_threads")
@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="Linux only")
def test_workers_stay_on_the_allowed_cpus_and_leave_the_caller_alone():
    _core.set_num_threads(len(os.sched_getaffinity(0)))
    allowed = os.sched_getaffinity(0)
    ops.relu(MANY)
    assert os.sched_getaffinity(0) == allowed
    for task in os.listdir("/proc/self/task"):
        assert os.sched_getaffinity(int(task)) <= allowed


PRINT_THREADS = "from convlet import _core; print(_core.num_threads())"


def test_the_environment_sets_the_number_of_threads():
    assert run(PRINT_THREADS, CONVLET_NUM_THREADS="3").stdout == "3\n"
    for wrong in ("0", "-2", "2.5", "many", "99999", ""):
        result = run(PRINT_THREADS, CONVLET_NUM_THREADS=wrong)
        message = f"CONVLET_NUM_THREADS: expected a whole number from 1 to 1024, got '{wrong}'"
        assert f"ValueError: {message}" in result.stderr
    imported = run("import convlet", CONVLET_NUM_THREADS="many")
    assert (imported.returncode, imported.stderr) == (0, "")


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="Linux only")
def test_by_default_no_more_threads_than_allowed_cpus():
    without = {k: v for k, v in os.environ.items() if k != "CONVLET_NUM_THREADS"}
    cpu = min(os.sched_getaffinity(0))
    script = f"import os; os.sched_setaffinity(0, {{{cpu}}}); {PRINT_THREADS}"
    result = subprocess.run(
        [sys.executable, "-c", script], env=without, capture_output=True, text=True, check=True
    )
    assert result.stdout == "1\n"


# ---------------------------------------------------------------- instruction sets

PRINT_ISA = "from convlet import _core; print(_core.isa())"


def test_the_fastest_instruction_set_is_the_default():
    without = {k: v for k, v in os.environ.items() if k != "CONVLET_ISA"}
    result = subprocess.run(
        [sys.executable, "-c", PRINT_ISA], env=without, capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == _core.supported_isas()[-1]
    assert _core.supported_isas()[0] == "baseline"


@pytest.mark.parametrize("isa", _core.supported_isas())
def test_the_environment_forces_an_instruction_set(isa):
    script = f"{PRINT_ISA}; print(_core.device_description('cpu'))"
    name, description = run(script, CONVLET_ISA=isa).stdout.splitlines()
    assert name == isa
    assert f", {isa}, " in description


def test_instruction_sets_that_cannot_run_are_refused():
    choices = ", ".join(_core.supported_isas())
    known = {"baseline", "avx2", "avx512"}
    before = _core.isa()
    for wrong in sorted({"mmx", "", "AVX2"} | known - set(_core.supported_isas())):
        why = "this machine cannot run it" if wrong in known else "no such instruction set"
        message = f"expected one of {choices}, got '{wrong}' ({why})"
        assert f"ValueError: CONVLET_ISA: {message}" in run(PRINT_ISA, CONVLET_ISA=wrong).stderr
        with pytest.raises(ValueError, match="isa: expected one of") as error:
            _core.set_isa(wrong)
        assert str(error.value) == f"isa: {message}"
    assert _core.isa() == before


PRINT_PINS = """
import os
import numpy as np
from convlet import _core, ops
cpus = sorted(os.sched_getaffinity(0))
_core.set_num_threads(len(cpus))
x = np.ones(1 << 20, np.float32)
ops.relu(x)  # starts the workers
for cpu in cpus:
    os.sched_setaffinity(0, {cpu})  # the calling thread alone
    ops.relu(x)
    pins = [os.sched_getaffinity(int(t)) for t in os.listdir("/proc/self/task")]
    print(*sorted(min(pin) for pin in pins if len(pin) == 1), *cpus, sep=",")
"""


@pytest.mark.skipif(
    not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) < 2,
    reason="needs Linux and two CPUs: there are no workers to pin otherwise",
)
def test_a_pinned_worker_makes_way_for_the_caller():
    """Wherever the caller is when a job starts, it and the workers have a CPU each."""
    lines = run(PRINT_PINS).stdout.split()
    cpus = sorted(os.sched_getaffinity(0))
    assert lines == [",".join(map(str, cpus + cpus))] * len(cpus)
