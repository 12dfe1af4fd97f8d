"""Fixtures that several test files use; helpers for comparison are in reference.py."""

import signal

import pytest
from hypothesis import HealthCheck, settings

import device_tests
from convlet import _core
from loader_threads import running

# A shell starts background jobs with Ctrl-C ignored; tests send it to themselves and to others.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Drawn examples are the same from run to run; shared machines are too uneven for deadlines.
settings.register_profile(
    "convlet",
    deadline=None,
    derandomize=True,
    max_examples=25,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
settings.load_profile("convlet")


def pytest_addoption(parser, pluginmanager):
    if not pluginmanager.hasplugin("timeout"):  # of pytest-timeout, which a GPU's tests do without
        parser.addini("timeout", "seconds for a test")
    parser.addoption(
        "--device",
        default="cpu",
        choices=("cpu", "simt", "cuda"),
        help="run the tests of ops, plans and training that apply on this device (device_tests.py);"
        " simt is the CUDA backend in the emulator of tests/simt",
    )
    parser.addoption(
        "--part",
        default="0/1",
        metavar="K/N",
        help="of the tests that apply, K, K+N, K+2N and so on",
    )


def pytest_configure(config):
    device = config.getoption("--device")
    try:
        device_tests.start(device)
    except ValueError as error:  # there is no such device here
        raise pytest.UsageError(f"--device {device}: {error}") from None


def pytest_ignore_collect(collection_path):
    return device_tests.is_left_out(collection_path) or None


def pytest_collection_modifyitems(config, items):
    device_tests.select(config, items)


@pytest.fixture(autouse=True)
def kernels_are_clean():
    """On the emulated device: nothing was wrong in any kernel that the test ran."""
    yield
    findings = device_tests.findings()
    assert not findings, findings


@pytest.fixture
def nothing_is_left_running():
    """No thread is, that was not there before."""
    before = running()
    yield
    assert running(before) == before


# What a test wants to be read when all went well, too.
CLOSING_LINES = pytest.StashKey[list[str]]()


def pytest_terminal_summary(terminalreporter, config):
    for line in config.stash.get(CLOSING_LINES, []):
        terminalreporter.write_line(line)


@pytest.fixture(params=_core.supported_isas())
def isa(request):
    """Runs the test once with each instruction set of this machine in force."""
    before = _core.isa()
    _core.set_isa(request.param)
    yield request.param
    _core.set_isa(before)


@pytest.fixture(params=[1, 2, 5])
def threads(request):
    """Runs the test with this many threads."""
    before = _core.num_threads()
    _core.set_num_threads(request.param)
    yield request.param
    _core.set_num_threads(before)
