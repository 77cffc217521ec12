import numpy as np
import pytest

from tfcompress import edge
from tfcompress.edge.engines import parity


@pytest.mark.parametrize(
    ("name", "dtype", "tolerated", "wrong"),
    [
        # Absolute, as shares of a largest output of 4: a tenth below and above the tolerance.
        ("float32", np.float32, 0.9 * 4e-4, 1.1 * 4e-4),
        ("float16", np.float32, 0.9 * 8e-2, 1.1 * 8e-2),
        ("dynamic", np.float32, 0.9 * 4e-1, 1.1 * 4e-1),
        # In the file's own integers.
        ("int8", np.int8, 2, 3),
        ("int16", np.int16, 64, 65),
    ],
)
def test_compare_lets_rounding_through_and_refuses_wrong_outputs(
    files, name, dtype, tolerated, wrong
):
    engine = edge.Runner(files[name]).engine
    assert engine.arithmetic() == name
    output = engine.outputs[0].name
    cpu = np.array([[1, -4, 2, 0, 3]], dtype)

    def compare(received, tolerance=None):
        arrays = [{output: cpu}, {output: received.astype(dtype)}]
        parity.compare(files[name], engine, name, *arrays, tolerance)

    one = np.array([0, 1, 0, 0, 0])
    compare(cpu)
    compare(cpu + tolerated * one)
    with pytest.raises(edge.DelegateMismatch, match=rf"{name}\.tflite.*1 of 5 values") as caught:
        compare(cpu + wrong * one)
    assert caught.value.numbers["error"] == pytest.approx(wrong, rel=1e-2)
    assert caught.value.numbers["output"] == output
    compare(cpu + wrong * one, tolerance=wrong)
    if dtype == np.float32:
        for poison in (np.nan, np.inf):
            with pytest.raises(edge.DelegateMismatch, match="off by up to inf"):
                compare(np.where(one, poison, cpu))


def test_compare_counts_steps_behind_a_dequantize_op(files):
    engine = edge.Runner(files["int8_float"]).engine
    step = edge.Runner(files["int8"]).outputs[0].scale
    assert engine.output_step(engine.outputs[0]) == pytest.approx(step, rel=1e-6)
    cpu = {"logits": np.array([[10 * step, 0]], np.float32)}
    parity.compare(files["int8_float"], engine, "int8", cpu, {"logits": cpu["logits"] + 2 * step})
    with pytest.raises(edge.DelegateMismatch, match="off by up to 3 output steps"):
        parity.compare(
            files["int8_float"], engine, "int8", cpu, {"logits": cpu["logits"] - 3 * step}
        )
