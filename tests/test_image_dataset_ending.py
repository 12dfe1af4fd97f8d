"""How a pass over an ImageDataset ends before its end: errors, Ctrl-C at any moment, and programs
that stop. No thread stays behind."""

import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

import convlet
from convlet import layers
from convlet.utils import image_dataset_from_directory
from loader_threads import run_program, running
from pictures import write_images

pytestmark = pytest.mark.usefixtures("nothing_is_left_running")


@pytest.fixture
def folder(tmp_path):
    write_images(tmp_path, {"ant": 7, "bee": 12, "cow": 4})
    return tmp_path


def fit(folder, batch_size=5, change=None, callbacks=()):
    data = image_dataset_from_directory(
        folder, image_size=(6, 8), batch_size=batch_size, verbose=False
    )
    net = convlet.Sequential(
        [layers.Input((6, 8, 3)), layers.Flatten(), layers.Dense(3, activation="softmax")]
    )
    net.compile("sgd", "sparse_categorical_crossentropy")
    net.fit(data if change is None else data.augment(change), verbose=0, callbacks=list(callbacks))


def test_an_exception_in_training_stops_the_threads(folder):
    class Stop(convlet.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            assert running(2) >= 2
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop") as error:
        fit(folder, batch_size=1, callbacks=[Stop()])
    assert running() == 0
    del error


def test_an_error_of_the_augmentation_is_raised(folder):
    def augmentation(x, indices, epoch, seed, out):
        raise ZeroDivisionError("augmentation")

    with pytest.raises(ZeroDivisionError, match="augmentation"):
        fit(folder, change=augmentation)


INTERRUPTED = """
    import sys
    import convlet
    from loader_threads import running
    from convlet import layers
    from convlet.utils import image_dataset_from_directory
    data = image_dataset_from_directory(sys.argv[1], image_size=(600, 800), batch_size=1)
    net = convlet.Sequential([
        layers.Input((600, 800, 3)), layers.MaxPooling2D(20), layers.Flatten(),
        layers.Dense(3, activation="softmax")])
    net.compile("sgd", "sparse_categorical_crossentropy")
    class Say(convlet.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            print("training", flush=True)
    try:
        net.fit(data, epochs=100000, verbose=0, callbacks=[Say()])
    except KeyboardInterrupt:
        print("interrupted, threads:", running(), flush=True)
"""


def test_ctrl_c_is_prompt_and_clean(folder):
    program = [sys.executable, "-c", textwrap.dedent(INTERRUPTED), str(folder)]
    for wait in (0.0, 0.05, 0.11):
        with subprocess.Popen(
            program,
            cwd=Path(__file__).parent,  # where loader_threads is
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as process:
            while process.stdout.readline() != b"training\n":
                assert process.poll() is None
            time.sleep(wait)
            process.send_signal(signal.SIGINT)
            begun = time.perf_counter()
            out, error = process.communicate(timeout=30)
            assert time.perf_counter() - begun < 5
            assert b"interrupted, threads: 0" in out, error
            assert (process.returncode, error) == (0, b"")


def test_ctrl_c_at_any_moment_leaves_no_thread_behind(folder):
    code = """
        import random, signal, sys, time
        import convlet
        from convlet import layers
        from convlet.utils import image_dataset_from_directory
        from loader_threads import running

        data = image_dataset_from_directory(sys.argv[1], image_size=(4, 4), batch_size=8)
        net = convlet.Sequential([
            layers.Input((4, 4, 3)), layers.Flatten(), layers.Dense(3, activation="softmax")])
        net.compile("sgd", "sparse_categorical_crossentropy")
        uses = {
            "an epoch is a pass": lambda: net.fit(data, verbose=0, epochs=2),
            "epochs share a pass": lambda: net.fit(data, verbose=0, epochs=2, steps_per_epoch=2),
            "evaluate": lambda: net.evaluate(data, verbose=0),
            "evaluate a part": lambda: net.evaluate(data, verbose=0, steps=2),
            "predict": lambda: net.predict(data),
            "predict a part": lambda: net.predict(data, steps=2),
        }

        def interrupt(*_):
            raise KeyboardInterrupt

        signal.signal(signal.SIGALRM, interrupt)
        draw = random.Random(0)
        for name, use in uses.items():
            use()
            assert running() == 0, name
            begun = time.perf_counter()
            use()
            duration = time.perf_counter() - begun
            interrupted = 0
            for _ in range(100):
                try:
                    signal.setitimer(signal.ITIMER_REAL, draw.uniform(1e-5, duration))
                    use()
                    signal.setitimer(signal.ITIMER_REAL, 0)
                except KeyboardInterrupt as error:  # its traceback has the frames
                    interrupted += 1
                    assert running() == 0, name
            assert interrupted > 20, (name, interrupted)
    """
    run_program(code, str(folder))


def test_a_program_may_end_in_the_middle_of_a_pass(folder):
    code = """
        import sys
        from convlet.utils import image_dataset_from_directory
        data = image_dataset_from_directory(sys.argv[1], batch_size=1, image_size=(900, 900))
        batches = iter(data)
        next(batches)
        print("end")
    """
    assert run_program(code, str(folder)).endswith("end\n")
