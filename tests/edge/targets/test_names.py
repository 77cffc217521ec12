import pytest

from tfcompress import edge
from tfcompress.edge.targets.names import available, target_named


def test_names_of_targets():
    assert target_named("local") == edge.Local()
    assert target_named("mcu") == edge.Microcontroller()
    assert target_named("ssh:pi@raspberrypi", "python3.12") == edge.Ssh(
        "pi@raspberrypi", "python3.12"
    )
    assert target_named("ethos-u85-256") == edge.EthosU("ethos-u85-256")
    with pytest.raises(ValueError, match="ssh:USER@HOST, adb"):
        target_named("tpu")


class Judging:
    name = "npu"

    def __init__(self, error):
        self.error = error

    def estimate(self, path, timeout=120.0):
        raise self.error


def test_a_program_that_refuses_the_small_file_is_available_and_one_that_dies_is_not():
    assert available(Judging(edge.ModelRefused("no float"))).available
    died = edge.ModelRefused("killed")
    died.__cause__ = RuntimeError()
    assert not available(Judging(died)).available
    missing = available(Judging(ImportError("pip install npu")))
    assert not missing.available and missing.reason == "pip install npu"


def test_a_machine_that_cannot_be_reached_says_why():
    found = available(edge.Ssh("127.0.0.1", options=("-F", "none", "-p", "1")))
    assert not found.available and "127.0.0.1" in found.reason
