import sys

import numpy as np
import pytest

from tfcompress import edge
from tfcompress.edge.engines import parity as gate
from tfcompress.edge.engines.gpu import GpuLog
from tfcompress.edge.system.tflite import PROBE
from tfcompress.edge.targets.local import Child, ChildFailure


def test_delegates_without_a_gpu_say_what_to_install(no_gpu):
    found = edge.delegates()
    assert list(found) == ["xnnpack", "reference", "gpu"]
    assert found["xnnpack"].available and "ai-edge-litert" in found["xnnpack"].reason
    assert found["reference"].available
    assert not found["gpu"].available
    for words in ("No adapters found", "apt-get install chromium-common", "VK_ICD_FILENAMES="):
        assert words in found["gpu"].reason


def test_a_software_gpu_is_called_one(software_gpu):
    gpu = edge.delegates()["gpu"]
    assert gpu.available
    assert "SwiftShader" in gpu.reason and "its speed means nothing" in gpu.reason


@pytest.mark.parametrize(
    ("name", "delegate", "expected"),
    [
        ("fixed", "xnnpack", edge.Placement("xnnpack", 3, 3, 1)),
        ("split", "xnnpack", edge.Placement("xnnpack", 3, 2, 2, {"REVERSE_SEQUENCE": 1})),
        ("onehot", "xnnpack", edge.Placement("xnnpack", 3, 1, 1, {"ARG_MAX": 1, "ONE_HOT": 1})),
        (
            "split",
            "reference",
            edge.Placement("reference", 3, 0, 0, {"CONV_2D": 2, "REVERSE_SEQUENCE": 1}),
        ),
    ],
)
def test_placement_on_the_cpu(files, name, delegate, expected):
    assert edge.placement(files[name], delegate) == expected


def test_xnnpack_takes_no_16_bit_activations(files):
    placed = edge.placement(files["int16"])
    assert placed.partitions == placed.ops_delegated == 0
    assert placed.left_behind["CONV_2D"] == 1
    assert str(placed) == "built-in kernels, no op delegated"


def test_placement_on_the_gpu(files, software_gpu):
    whole = edge.placement(files["fixed"], "gpu")
    assert (whole.ops_delegated, whole.ops_total, whole.partitions) == (3, 3, 1)
    assert whole.software and "SwiftShader" in str(whole)
    # LiteRT names the op that it cannot do, but not the others that it leaves to the CPU with it.
    part = edge.placement(files["split"], "gpu")
    assert part.ops_delegated is None
    assert part.left_behind == {"REVERSE_SEQUENCE": None}
    assert part.partitions >= 1
    assert "REVERSE_SEQUENCE and maybe more on the CPU" in str(part)


def test_the_gpu_refuses_what_it_cannot_do(files, software_gpu):
    with pytest.raises(edge.ModelRefused, match=r"computes shapes .*batch_size=1"):
        edge.placement(files["shapes"], "gpu")


def test_placement_errors(files, no_gpu, tmp_path):
    with pytest.raises(edge.DelegateUnavailable, match="No adapters found"):
        edge.placement(files["fixed"], "gpu")
    half = tmp_path / "half.tflite"
    half.write_bytes(PROBE.read_bytes()[:300])
    with pytest.raises(edge.ModelFileError, match=r"half.tflite.*cut off"):
        edge.placement(half)
    with pytest.raises(edge.ModelFileError, match="no such file"):
        edge.placement(tmp_path / "none.tflite")


def test_gpu_log():
    log = GpuLog.parse(
        "I0000 environment.cc:532] Selected adapter: Some Device (X), arch=a, vendor=v, "
        "backend=Vulkan, adapterType=Discrete GPU\n"
        "ERROR: Following operations are not supported by GPU delegate:\n"
        "CONV_2D: Tensor type(INT16) is not supported. x\n"
        "CUSTOM_OP: no\n"
        "3 operations will run on the GPU, and the remaining 2 operations will run on the CPU.\n"
        "INFO: something else\n"
        "I0000 delegate_kernel.cc:984] Initializing WebGPU-based API from graph.\n"
        "I0000 delegate_kernel.cc:984] Initializing WebGPU-based API from graph.\n"
    )
    assert (log.adapter, log.software, log.kernels) == ("Some Device (X)", False, 2)
    assert log.unsupported == {
        "CONV_2D": "Tensor type(INT16) is not supported. x",
        "CUSTOM_OP": "no",
    }
    assert GpuLog.parse("") == GpuLog()


@pytest.mark.parametrize(
    ("name", "dtype", "bearable", "wrong"),
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
def test_the_gate(files, name, dtype, bearable, wrong):
    engine = edge.Runner(files[name]).engine
    assert engine.arithmetic() == name
    output = engine.outputs[0].name
    cpu = np.array([[1, -4, 2, 0, 3]], dtype)

    def compare(received, tolerance=None):
        arrays = [{output: cpu}, {output: received.astype(dtype)}]
        gate.compare(files[name], engine, name, *arrays, tolerance)

    one = np.array([0, 1, 0, 0, 0])
    compare(cpu)
    compare(cpu + bearable * one)
    with pytest.raises(edge.DelegateMismatch, match=rf"{name}\.tflite.*1 of 5 values") as caught:
        compare(cpu + wrong * one)
    assert caught.value.numbers["error"] == pytest.approx(wrong, rel=1e-2)
    assert caught.value.numbers["output"] == output
    compare(cpu + wrong * one, tolerance=wrong)
    if dtype == np.float32:
        for poison in (np.nan, np.inf):
            with pytest.raises(edge.DelegateMismatch, match="off by up to inf"):
                compare(np.where(one, poison, cpu))


def test_the_gate_counts_steps_behind_a_dequantize_op(files):
    engine = edge.Runner(files["int8_float"]).engine
    step = edge.Runner(files["int8"]).outputs[0].scale
    assert engine.output_step(engine.outputs[0]) == pytest.approx(step, rel=1e-6)
    cpu = {"logits": np.array([[10 * step, 0]], np.float32)}
    gate.compare(files["int8_float"], engine, "int8", cpu, {"logits": cpu["logits"] + 2 * step})
    with pytest.raises(edge.DelegateMismatch, match="off by up to 3 output steps"):
        gate.compare(files["int8_float"], engine, "int8", cpu, {"logits": cpu["logits"] - 3 * step})


def test_children_import_neither_tensorflow_nor_tfcompress():
    with Child() as child:
        child.request("probe", 60, delegate="xnnpack")
        modules = child.request("modules", 60)["modules"]
    tops = {name.partition(".")[0] for name in modules}
    assert "numpy" in tops and "ai_edge_litert" in tops
    assert not tops & {"tensorflow", "keras", "tfcompress", "rich", "matplotlib", "click"}


@pytest.mark.parametrize(
    ("code", "status", "reason"),
    [
        ("import os; os.kill(os.getpid(), 11)", "crashed", "was killed by SIGSEGV during 'x'"),
        ("import os; os.abort()", "crashed", "SIGABRT"),
        ("raise SystemExit('oh dear')", "crashed", "exit code 1 .*its last words: oh dear"),
        ("import time; time.sleep(600)", "timeout", "no answer to 'x' within 0.5 s"),
        ("print('not json'); import time; time.sleep(600)", "error", "'not json"),
    ],
)
def test_how_a_child_fails(code, status, reason):
    with Child([sys.executable, "-u", "-c", code]) as child:
        with pytest.raises(ChildFailure, match=reason) as caught:
            child.request("x", 0.5 if status == "timeout" else 60)
        assert caught.value.status == status


def test_a_child_that_says_no_goes_on():
    with Child() as child:
        for command, arguments, status in (
            ("placement", {"path": "none", "delegate": "xnnpack", "threads": None}, "refused"),
            ("round", {"runs": 1, "seconds": 0.0}, "error"),
        ):
            with pytest.raises(ChildFailure) as caught:
                child.request(command, 60, **arguments)
            assert caught.value.status == status
        assert child.request("probe", 60, delegate="xnnpack")["available"]
