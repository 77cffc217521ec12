"""A pass of the user's own, in one file: as docs/extending.md tells it."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest

from tfcompress import converters
from tfcompress.converters.rewriting import run_pass
from tfcompress.edge import Runner

STRIP_NAMES = """
from .base import Rewritten
from .flatbuffer import pack, unpack


def rewrite(content: bytes) -> Rewritten:
    smaller = pack(unpack(content), names=False)
    return Rewritten(smaller, report={"saved": len(content) - len(smaller)})
"""

# Adds `offset` to every bias of float32, and says `tolerance` about the result.
SHIFT = """
import numpy as np

from .base import Rewritten
from .flatbuffer import pack, unpack


def rewrite(content: bytes, offset: float, tolerance: float | None) -> Rewritten:
    model = unpack(content)
    for tensor in model.subgraphs[0].tensors:
        data = model.buffers[tensor.buffer].data
        if data is not None and len(tensor.shape) == 1 and tensor.type == 0:
            values = data.view(np.float32) + np.float32(offset)
            model.buffers[tensor.buffer].data = values.view(np.uint8)
    return Rewritten(pack(model), tolerance=tolerance)
"""

REFUSE = """
from .base import Refused


def rewrite(content: bytes):
    raise Refused("holds nothing to rewrite")
"""


@pytest.fixture
def run(files, tmp_path):
    """Run the source of a pass over a file of a precision."""

    def run(source, name, **options):
        (tmp_path / "mine.py").write_text(source)
        step = converters.Pass(str(tmp_path / "mine.py"), options)
        return run_pass(step, files[name].path, tmp_path, 60.0, f"{name}.tflite")

    return run


@pytest.mark.parametrize("name", ["float32", "int8"])
def test_a_pass_of_one_file_is_run_and_compared(files, run, images, name):
    found, report = run(STRIP_NAMES, name)
    assert report == {"saved": files[name].bytes - found.bytes}
    assert found.path.stat().st_size == found.bytes < files[name].bytes
    border = {*found.subgraphs[0].inputs, *found.subgraphs[0].outputs}
    assert {i for i, t in enumerate(found.tensors) if t.name} == border
    np.testing.assert_array_equal(Runner(found.path)(images), Runner(files[name])(images))


def test_a_pass_that_changes_results_unannounced_is_an_error(run):
    message = r"float32\.tflite does not compute the same after pass '.*mine\.py': on .*differs"
    with pytest.raises(converters.ConversionError, match=message):
        run(SHIFT, "float32", offset=1e-3, tolerance=0.0)
    with pytest.raises(converters.ConversionError, match=message):
        run(SHIFT, "float32", offset=1.0, tolerance=1e-4)


@pytest.mark.parametrize(("offset", "tolerance"), [(1e-7, 1e-4), (1.0, None)])
def test_a_pass_may_change_results_as_far_as_it_says(files, run, images, offset, tolerance):
    found, _ = run(SHIFT, "float32", offset=offset, tolerance=tolerance)
    shifted = Runner(found.path)(images) - Runner(files["float32"])(images)
    assert np.abs(shifted).max() > 0
    assert np.abs(shifted).max() < 10 * offset + 1e-6


def test_a_pass_that_refuses_or_fails_names_the_file(run):
    with pytest.raises(converters.ConversionError, match=r"int8\.tflite holds nothing to rewrite"):
        run(REFUSE, "int8")
    with pytest.raises(converters.ConversionError, match=r"int8\.tflite was not.*missing 2"):
        run(SHIFT, "int8")
    with pytest.raises(converters.ConversionError, match=r"mine\.py.*SyntaxError"):
        run("def", "int8")


def test_a_pass_whose_file_does_not_load_is_an_error(run):
    source = SHIFT.replace("pack(model)", "pack(model)[:-900]")
    with pytest.raises(converters.ConversionError, match=r"float32\.tflite"):
        run(source, "float32", offset=0.0, tolerance=None)


def test_convert_runs_the_passes_of_a_precision(model, files, images, tmp_path):
    (tmp_path / "mine.py").write_text(STRIP_NAMES)

    @dataclass(frozen=True)
    class Nameless(converters.Float16):
        name: ClassVar[str] = "nameless"

        def passes(self):
            return (*super().passes(), converters.Pass(str(tmp_path / "mine.py")))

    wanted = {tmp_path / "a.tflite": Nameless(), tmp_path / "b.tflite": converters.Float16()}
    stripped, plain = converters.convert_all(model, wanted)
    assert stripped.bytes == stripped.path.stat().st_size < plain.bytes == files["float16"].bytes
    np.testing.assert_array_equal(Runner(stripped)(images), Runner(plain)(images))
