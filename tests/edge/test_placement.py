import numpy as np
import pytest

from tfcompress import edge
from tfcompress.edge.system.tflite import PROBE


def test_delegates_without_a_gpu_say_what_to_install(no_gpu):
    found = edge.delegates()
    assert list(found) == ["xnnpack", "reference", "gpu"]
    assert found["xnnpack"].available and "ai-edge-litert" in found["xnnpack"].reason
    assert found["reference"].available
    assert not found["gpu"].available
    for words in ("No adapters found", "apt-get install chromium-common", "VK_ICD_FILENAMES="):
        assert words in found["gpu"].reason


def test_delegates_marks_a_software_gpu(software_gpu):
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


def test_placement_of_a_custom_op_that_only_xnnpack_runs(files, tmp_path):
    """MediaPipe's files have it: a transposed convolution with a bias."""
    from tfcompress.converters.passes.flatbuffer import pack, unpack
    from tfcompress.converters.passes.graph import Graph

    model = unpack(files["transposed"].read_bytes())
    graph = Graph(model, 0)
    [node] = graph.tables.operators
    _, weights, image = (int(place) for place in node.inputs)
    bias = graph.add(array=np.zeros(graph[weights].shape[0], np.float32))
    node.inputs = np.array([image, weights, bias], np.int32)
    node.builtinOptionsType, node.builtinOptions = 0, None
    # Padding SAME, and strides of 2.
    node.customOptions = np.array([1, 2, 2], "<i4").view(np.uint8)
    [code] = model.operatorCodes
    code.builtinCode = code.deprecatedBuiltinCode = 32
    code.customCode = b"Convolution2DTransposeBias"
    path = tmp_path / "custom.tflite"
    path.write_bytes(pack(model))
    assert edge.placement(path) == edge.Placement("xnnpack", 1, 1, 1)
    image = np.random.default_rng(0).normal(size=(1, 8, 8, 16)).astype(np.float32)
    expected = edge.Runner(files["transposed"])(image)
    np.testing.assert_allclose(edge.Runner(path)(image), expected, rtol=1e-5, atol=1e-5)
    with pytest.raises(edge.ModelRefused, match="Convolution2DTransposeBias"):
        edge.placement(path, "reference")


def test_placement_shows_that_xnnpack_takes_no_16_bit_activations(files):
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


def test_placement_raises_model_refused_for_free_shapes_on_the_gpu(files, software_gpu):
    with pytest.raises(edge.ModelRefused, match=r"computes shapes .*batch_size=1"):
        edge.placement(files["shapes"], "gpu")


def test_placement_raises_the_error_that_says_why(files, no_gpu, tmp_path):
    with pytest.raises(edge.DelegateUnavailable, match="No adapters found"):
        edge.placement(files["fixed"], "gpu")
    half = tmp_path / "half.tflite"
    half.write_bytes(PROBE.read_bytes()[:300])
    with pytest.raises(edge.ModelFileError, match=r"half.tflite.*cut off"):
        edge.placement(half)
    with pytest.raises(edge.ModelFileError, match="no such file"):
        edge.placement(tmp_path / "none.tflite")
