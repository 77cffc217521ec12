import keras
import numpy as np
import pytest
from keras import layers

from tests.support.warm_children import warm_children

# Where doctests are looked for, it would be imported, and leave that process without Keras.
collect_ignore = ["support/preloaded.py"]

SAMPLES, FEATURES = 64, 12
SPREAD = ("tests/contract/", "tests/test_notebooks.py")


def pytest_addoption(parser):
    parser.addoption("--one-case", action="store_true", help="one case of each parametrized test")
    parser.addoption("--demo", help="what `tfcompress demo` has written, with its stderr.txt")


def pytest_collection_modifyitems(config, items):
    """A slow test says what takes long in it."""
    for item in items:
        mark = item.get_closest_marker("slow")
        if mark is not None and not mark.args:
            raise pytest.UsageError(f'{item.nodeid}: write @pytest.mark.slow("what takes long")')
    if config.getoption("one_case"):
        # The first that is quick, as a case may be marked slow.
        quick = [item for item in items if not item.get_closest_marker("slow")]
        first = {item.nodeid.partition("[")[0]: item for item in reversed(quick)}
        items[:] = reversed(first.values())


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Tests of a file run in one process, which makes what they share once.

    Those that share nothing and take long fill both processes at the end.
    """
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            return nodeid if nodeid.startswith(SPREAD) else nodeid.partition("::")[0]

    return ByFile(config, log)


@pytest.fixture(scope="session", autouse=True)
def converting_starts_at_once():
    """As most tests convert something."""
    with warm_children():
        yield


@pytest.fixture(autouse=True)
def seeded():
    keras.utils.set_random_seed(0)


@pytest.fixture(scope="session")
def data():
    """Inputs `(64, 12)` and targets `(64, 3)` of a regression that can be learned."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(SAMPLES, FEATURES)).astype(np.float32)
    return x, np.tanh(x @ rng.normal(size=(FEATURES, 3))).astype(np.float32)


@pytest.fixture
def mlp():
    """Two kernels of 12 x 10 and 10 x 3; compiled."""
    model = keras.Sequential(
        [
            keras.Input((FEATURES,)),
            layers.Dense(10, activation="relu", name="hidden"),
            layers.Dense(3, name="head"),
        ]
    )
    # Compiling with XLA takes longer than training; test_training_modes.py has both.
    model.compile(keras.optimizers.Adam(0.01), "mse", jit_compile=False)
    return model
