import gzip
import os
import pickle
from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest

from tfcompress.converters import Float32
from tfcompress.converters.converted import Converted


@pytest.fixture
def found(tmp_path):
    path = tmp_path / "m.tflite"
    path.write_bytes(bytes(range(256)) * 40)
    return Converted(path, path.stat().st_size, Float32())


def test_it_is_usable_as_a_path(found):
    assert os.fspath(found) == str(found.path)
    assert len(Path(found).read_bytes()) == found.bytes


def test_gzip_bytes_are_those_of_the_file(found):
    packed = gzip.compress(found.path.read_bytes())
    assert found.gzip_bytes == pytest.approx(len(packed), abs=32)  # other levels, another header
    assert found.gzip_bytes < found.bytes / 10


def test_it_does_not_change_and_can_be_sent(found):
    with pytest.raises(FrozenInstanceError):
        found.bytes = 1
    assert pickle.loads(pickle.dumps(found)) == found
