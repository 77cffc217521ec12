"""Random graphs with random zeros: sparse weights never change a result."""

import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.zoo.random_graphs import Net
from tfcompress.converters.passes.equality import difference
from tfcompress.converters.passes.flatbuffer import pack, unpack
from tfcompress.converters.passes.sparse_encoding.rewriting import rewrite_weights, round_weights

RELU = st.sampled_from([0, 1, 3])
PATTERN = st.tuples(
    st.sampled_from([0.0, 0.5, 0.8, 0.95, 1.0]), st.integers(0, 3), st.sampled_from([1, 1, 4, 16])
)


@st.composite
def nets(draw):
    seed = draw(st.integers(0, 2**32 - 1))
    kind = draw(st.sampled_from(["float32", "float16", "int8"]))
    size = draw(st.sampled_from([1, 5, 8]))
    shape = [1, size, size, draw(st.sampled_from([3, 16, 260]))]
    net = Net(kind, seed, shape, free_batch=draw(st.booleans()))
    for _ in range(draw(st.integers(1, 3))):
        op = draw(st.sampled_from(["conv", "shared", "depthwise", "dense"]))
        relu, pattern = draw(RELU), draw(PATTERN)
        where = draw(st.sampled_from([1, 3])), draw(st.sampled_from([1, 2])), draw(st.booleans())
        if op == "conv":
            net.convolution(draw(st.sampled_from([8, 33, 64])), *where, relu, pattern)
        elif op == "shared":
            channels = net.shape[-1]
            weights = net.convolution(channels, 1, 1, True, relu, pattern)
            if kind != "int8":  # whose bias fits the scale of one input alone
                net.convolution(channels, 1, 1, True, relu, pattern, weights)
        elif op == "depthwise":
            net.depthwise(*where, relu, pattern)
        else:
            net.fully_connected(draw(st.sampled_from([8, 100])), relu, draw(st.booleans()), pattern)
    return net.content()


def check(content, int8_weights):
    with tempfile.TemporaryDirectory() as name:
        reference, result = Path(name, "reference.tflite"), Path(name, "result.tflite")
        model = unpack(content)
        grids = round_weights(model) if int8_weights else {}
        reference.write_bytes(pack(model))
        model = unpack(reference.read_bytes())
        weights = rewrite_weights(model, grids, unsafe="")
        result.write_bytes(pack(model))
        assert difference(reference, result) == ""
        # What the tables add is an estimate, and the file of `sparsify` is the smaller of the two.
        assert result.stat().st_size < reference.stat().st_size + 400
        return weights


@settings(max_examples=30, deadline=None)
@given(nets(), st.booleans())
def test_random_graphs_compute_the_same_bit_for_bit(content, int8_weights):
    check(content, int8_weights)
