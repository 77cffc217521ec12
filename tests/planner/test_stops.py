import errno

import pytest

from tfcompress import edge
from tfcompress.planner.data import Examples
from tfcompress.planner.measure import Device
from tfcompress.planner.stops import CannotGoOn, check_device, check_disk


def test_full_disk_is_found_behind_other_errors():
    full = OSError(errno.ENOSPC, "No space left on device", "a.tflite")
    later = RuntimeError("it could not be written")
    later.__cause__ = full
    for error in (full, later, OSError(errno.EDQUOT, "Disk quota exceeded")):
        with pytest.raises(CannotGoOn, match="the disk is full"):
            check_disk(error)
    check_disk(OSError(errno.ENOENT, "No such file"))
    check_disk(RuntimeError("nothing to cut"))


def test_device_that_runs_the_original_is_not_to_blame(monkeypatch):
    device, examples = Device(edge.Local()), Examples({}, None)
    monkeypatch.setattr(Examples, "first", lambda self: {})
    monkeypatch.setattr(Device, "latency", lambda *arguments: (1.0, 1.0))
    check_device(device, None, examples)

    def refuse(*arguments):
        raise edge.ModelRefused("no route to host")

    monkeypatch.setattr(Device, "latency", refuse)
    with pytest.raises(CannotGoOn, match=r"'local' went away .*no route"):
        check_device(device, None, examples)
