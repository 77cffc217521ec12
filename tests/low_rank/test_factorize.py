"""What `factorize` makes of models: the layers, their numbers, and what stays as it is."""

import json

import keras
import numpy as np
import pytest
from keras import layers

import tfcompress as tfc
from tests.low_rank.nets import check_costs, convnet, one, randomize, single
from tfcompress import converters

RNG = np.random.default_rng(0)

# float32 sums of some hundred products of order 1, in another order.
ROUNDING = {"rtol": 1e-5, "atol": 2e-5}


def low_rank(shape, inputs, rank):
    """A kernel of an exact rank; `inputs` are the axes that are summed over."""
    outputs = [axis for axis in range(len(shape)) if axis not in inputs]
    m = np.prod([shape[axis] for axis in inputs])
    n = np.prod([shape[axis] for axis in outputs])
    matrix = RNG.normal(size=(m, rank)) @ RNG.normal(size=(rank, n))
    order = [*inputs, *outputs]
    return matrix.reshape([shape[axis] for axis in order]).transpose(np.argsort(order))


def low_multilinear_rank(shape, ranks):
    first, last = RNG.normal(size=(shape[-2], ranks[0])), RNG.normal(size=(ranks[1], shape[-1]))
    return np.einsum("ir,...rs,so->...io", first, RNG.normal(size=(*shape[:-2], *ranks)), last)


MATRICES = {
    "dense": (lambda: layers.Dense(24, activation="relu"), (16,), (0,)),
    "dense on a sequence": (lambda: layers.Dense(24), (5, 16), (0,)),
    "einsum, heads": (
        lambda: layers.EinsumDense("abc,cde->abde", (None, 4, 6), bias_axes="de"),
        (5, 16),
        (0,),
    ),
    "einsum, merged": (
        lambda: layers.EinsumDense("abde,dec->abc", (None, 24), bias_axes="c", activation="relu"),
        (5, 4, 4),
        (0, 1),
    ),
    "einsum, ellipsis left": (
        lambda: layers.EinsumDense("...x,xy->...y", 24, bias_axes="y"),
        (5, 16),
        (0,),
    ),
    "einsum, ellipsis right": (
        lambda: layers.EinsumDense("ab...,bc->ac...", 24, bias_axes="c"),
        (16, 5),
        (0,),
    ),
    "einsum, along time": (
        lambda: layers.EinsumDense("abc,bd->adc", (24, 5), bias_axes="d"),
        (16, 5),
        (0,),
    ),
    "einsum, transposed": (
        lambda: layers.EinsumDense("abc,dc->abd", (5, 24), bias_axes="d"),
        (5, 16),
        (1,),
    ),
    "conv1d 1": (lambda: layers.Conv1D(24, 1, strides=2, padding="causal"), (7, 16), (0, 1)),
    "conv2d 1x1": (lambda: layers.Conv2D(24, 1, activation="relu"), (5, 4, 16), (0, 1, 2)),
    "conv2d 1x1 strided": (
        lambda: layers.Conv2D(24, 1, strides=(2, 3), padding="same"),
        (5, 7, 16),
        (0, 1, 2),
    ),
    "conv3d 1x1x1": (lambda: layers.Conv3D(24, 1), (3, 3, 3, 16), (0, 1, 2, 3)),
}


@pytest.mark.parametrize("name", MATRICES)
def test_a_matrix_of_low_rank_is_reproduced(name):
    make, shape, inputs = MATRICES[name]
    layer = make()
    model = single(layer, shape)
    randomize(model)
    layer.kernel.assign(low_rank(layer.kernel.shape, inputs, 3))
    plan = tfc.low_rank_plan(model, energy=1.0)
    assert [(p.method, p.rank, p.full_rank) for p in plan.layers] == [("SVD", (3,), (16,))]
    small = tfc.factorize(model, plan)
    assert [part.name for part in small.layers] == [
        "x", f"{layer.name}_1", f"{layer.name}_2", "after",
    ]  # fmt: skip
    x = RNG.normal(size=(2, *shape)).astype("float32")
    np.testing.assert_allclose(small(x), model(x), **ROUNDING)
    check_costs(small, plan)
    first, last = small.layers[1:3]
    assert getattr(first, "activation", None) in (None, keras.activations.linear)
    assert first.bias is None
    np.testing.assert_array_equal(last.bias, layer.bias)


TUCKER = {
    "conv1d": (lambda: layers.Conv1D(14, 3, padding="causal", dilation_rate=2), (9, 12)),
    "conv2d": (lambda: layers.Conv2D(14, 3, activation="relu"), (6, 7, 12)),
    "conv2d same strided": (lambda: layers.Conv2D(14, 3, strides=2, padding="same"), (7, 6, 12)),
    "conv2d strided": (lambda: layers.Conv2D(14, (3, 2), strides=(1, 2)), (7, 6, 12)),
    "conv2d dilated": (lambda: layers.Conv2D(14, 3, dilation_rate=2, use_bias=False), (9, 9, 12)),
    "conv3d": (lambda: layers.Conv3D(14, 2), (3, 4, 3, 12)),
}


@pytest.mark.parametrize("name", TUCKER)
def test_a_convolution_of_low_rank_is_reproduced(name):
    make, shape = TUCKER[name]
    layer = make()
    model = single(layer, shape)
    randomize(model)
    layer.kernel.assign(low_multilinear_rank(layer.kernel.shape, (2, 3)))
    plan = tfc.low_rank_plan(model, energy=1.0)
    assert [(p.method, p.rank, p.full_rank) for p in plan.layers] == [
        ("Tucker-2", (2, 3), (12, 14))
    ]
    small = tfc.factorize(model, plan)
    reduce, core, expand = small.layers[1:4]
    assert (reduce.kernel.shape[-1], core.kernel.shape[-1]) == (2, 3)
    assert core.kernel_size == layer.kernel_size
    assert reduce.bias is None
    assert core.bias is None
    assert (expand.bias is None) == (layer.bias is None)
    x = RNG.normal(size=(2, *shape)).astype("float32")
    np.testing.assert_allclose(small(x), model(x), **ROUNDING)
    check_costs(small, plan)


@pytest.mark.parametrize(("rank", "names"), [((4, 2), "12"), ((2, 14), "12"), ((2, 2), "123")])
def test_a_full_rank_needs_no_matrix(rank, names):
    layer = layers.Conv2D(14, 3, name="conv")
    model = single(layer, (6, 6, 4))
    layer.kernel.assign(low_multilinear_rank(layer.kernel.shape, rank))
    plan = tfc.low_rank_plan(model, energy=1.0)
    assert plan.layers[0].rank == rank
    small = tfc.factorize(model, plan)
    assert [part.name for part in small.layers[1:-1]] == [f"conv_{number}" for number in names]
    x = RNG.normal(size=(2, 6, 6, 4)).astype("float32")
    np.testing.assert_allclose(small(x), model(x), **ROUNDING)
    check_costs(small, plan)


def test_an_embedding_becomes_a_thinner_one_and_a_projection():
    words = keras.Input((6,), dtype="int32", name="words")
    embedding = layers.Embedding(50, 20, mask_zero=True, name="table")
    model = keras.Model(words, layers.LSTM(4, name="lstm")(embedding(words)))
    embedding.embeddings.assign(low_rank((50, 20), (0,), 3))
    plan = tfc.low_rank_plan(model, energy=1.0)
    assert [(p.path, p.rank) for p in plan.factorized] == [("table", (3,))]
    small = tfc.factorize(model, plan)
    check_costs(small, plan)
    x = np.array([[3, 9, 0, 0, 0, 0], [1, 2, 3, 4, 5, 49]])
    np.testing.assert_allclose(small(x), model(x), **ROUNDING)
    # The mask goes through.
    np.testing.assert_allclose(small(x)[0], small(np.array([[3, 9, 0, 0, 0, 0]]))[0], **ROUNDING)
    assert np.abs(small(x)[0] - small(np.where(x == 0, 7, x))[0]).max() > 1e-3


def test_the_kept_energy_is_that_of_the_composed_kernel():
    x = keras.Input((6, 6, 12), name="x")
    conv = layers.Conv2D(16, 3, name="conv")
    head = layers.Dense(30, name="head")
    model = keras.Model(x, head(layers.GlobalAveragePooling2D()(conv(x))))
    plan = tfc.low_rank_plan(model, energy=0.6)
    small = tfc.factorize(model, plan)
    refined = tfc.factorize(model, tfc.low_rank_plan(model, energy=0.6, refine=5))

    def lost(model, name):
        [*made] = [part for part in model.layers if part.name.startswith(name)]
        if name == "head":
            kernel = made[0].kernel.numpy() @ made[1].kernel.numpy()
            return np.square(kernel - head.kernel).sum() / np.square(head.kernel).sum()
        kernel = made[0].kernel.numpy()
        for part in made[1:]:
            # Of two convolutions one after the other, one over a single position.
            kernel = np.einsum("hwio,klos->hkwlis", kernel, part.kernel.numpy()).reshape(
                max(kernel.shape[0], part.kernel.shape[0]), -1, 12, part.kernel.shape[-1]
            )
        return np.square(kernel - conv.kernel).sum() / np.square(conv.kernel).sum()

    for planned in plan.layers:
        assert planned.energy >= 0.6
        # float32's rounding of the factors
        np.testing.assert_allclose(lost(small, planned.path), 1 - planned.energy, atol=1e-6)
        assert lost(refined, planned.path) <= 1 - planned.energy + 1e-6
    # The next lower rank of the matrix keeps less than was asked for.
    singular = np.square(np.linalg.svd(head.kernel.numpy(), compute_uv=False))
    [rank] = plan.layers[1].rank
    assert singular[: rank - 1].sum() / singular.sum() < 0.6


def test_shared_and_nested_layers_are_replaced_once():
    model = convnet()
    before, config = model.get_weights(), json.dumps(model.get_config())
    plan = tfc.low_rank_plan(model, 0.5)
    small = tfc.factorize(model, plan)
    assert [part.name for part in small.layers] == [
        "image", "stem_1", "stem_2", "stem_3", "bn", "twice_1", "twice_2", "twice_3", "sum",
        "inner", "dw", "pointwise", "flat", "hidden_1", "hidden_2", "classes_1",
        "classes",
    ]  # fmt: skip
    assert {p.path: p.reason for p in plan.left_alone} == {
        "dw": "depthwise",
        "pointwise": "not cheaper at rank 16",
    }
    inner = small.get_layer("inner")
    assert [part.name for part in inner.layers[1:]] == ["conv_1", "conv_2", "conv_3", "relu"]
    assert len(small.get_layer("twice_2")._inbound_nodes) == 2
    # The nested model is strided and declared for any size: counted on what it is called with.
    check_costs(small, plan)
    assert plan.macs == tfc.summary(model).total.macs
    # The original is as it was.
    assert json.dumps(model.get_config()) == config
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    mine = {id(variable) for variable in model.variables}
    assert not any(id(variable) in mine for variable in small.variables)


def test_an_output_keeps_its_name_and_names_do_not_clash():
    x = keras.Input((32,), name="x")
    h = layers.Dense(32, name="hidden")(x)
    h = layers.Dense(32, name="hidden_1")(h)
    model = keras.Model(x, {"a": layers.Dense(32, name="head")(h)})
    small = tfc.factorize(model, 0.75)
    assert [part.name for part in small.layers[1:]] == [
        "hidden_factor_1", "hidden_factor_2", "hidden_1_1", "hidden_1_2", "head_1", "head",
    ]  # fmt: skip
    assert small.output_names == model.output_names
    assert set(small(np.zeros((1, 32)))) == {"a"}


def test_regularizers_dtype_policy_and_trainable_are_carried_over():
    hidden = layers.Dense(
        32,
        name="hidden",
        kernel_regularizer=keras.regularizers.L2(0.1),
        bias_regularizer=keras.regularizers.L1(0.2),
        activity_regularizer=keras.regularizers.L1(0.3),
        bias_constraint=keras.constraints.NonNeg(),
        dtype="mixed_float16",
    )
    frozen = layers.Conv2D(32, 1, name="frozen", trainable=False)
    x = keras.Input((2, 2, 32))
    model = keras.Model(x, layers.ReLU()(frozen(hidden(x))))
    small = tfc.factorize(model, 0.75)
    first, last = small.get_layer("hidden_1"), small.get_layer("hidden_2")
    for part in (first, last):
        assert part.dtype_policy.name == "mixed_float16"
        assert float(part.kernel_regularizer.l2) == pytest.approx(0.1)
        assert part.kernel.regularizer is part.kernel_regularizer
    assert float(last.bias_regularizer.l1) == pytest.approx(0.2)
    assert float(last.activity_regularizer.l1) == pytest.approx(0.3)
    assert first.activity_regularizer is None
    assert isinstance(last.bias_constraint, keras.constraints.NonNeg)
    assert not small.get_layer("frozen_1").trainable_variables
    assert not small.get_layer("frozen_2").trainable_variables


class Scale(layers.Dense):
    def call(self, inputs):
        return 2 * super().call(inputs)


class Tied(layers.Layer):
    """Multiplies with the table of an embedding, of which it holds the weight alone."""

    def __init__(self, weight, **kwargs):
        super().__init__(**kwargs)
        self.weight = weight

    def call(self, x):
        return x @ keras.ops.transpose(self.weight)


def tied():
    words = keras.Input((4,), dtype="int32")
    table = layers.Embedding(40, 16, name="table")
    embedded = table(words)
    return keras.Model(words, Tied(table.embeddings, name="tied")(embedded))


def constrained():
    return one(layers.Dense(16, kernel_constraint="non_neg", name="layer"))


def masked():
    """As after a `fit` with Prune that was interrupted."""
    from tfcompress.model import constraints

    model = one(layers.Dense(16, name="layer"))
    constraints.attach_mask(model.get_layer("layer").kernel, model, object(), object())
    return model


def lora():
    model = one(layers.Dense(16, name="layer"))
    model.get_layer("layer").enable_lora(2)
    return model


def quantized():
    model = one(layers.Dense(16, name="layer"))
    model.get_layer("layer").quantize("int8")
    return model


def attention():
    x = keras.Input((8, 16))
    return keras.Model(x, layers.MultiHeadAttention(2, 8, name="layer")(x, x))


LEFT_ALONE = {
    "grouped": (lambda: one(layers.Conv1D(16, 3, groups=2, name="layer")), "grouped"),
    "as ConvNeXt": (lambda: one(layers.Conv1D(16, 3, groups=16, name="layer")), "depthwise"),
    "depthwise": (lambda: one(layers.DepthwiseConv1D(3, name="layer")), "depthwise"),
    "LSTM": (lambda: one(layers.LSTM(8, name="layer")), "no rule for LSTM"),
    "GRU": (lambda: one(layers.Bidirectional(layers.GRU(8), name="layer")), "rule for Bidirection"),
    "attention": (attention, "no rule for MultiHeadAttention"),
    "transposed": (lambda: one(layers.Conv1DTranspose(8, 3, name="layer")), "Conv1DTranspose"),
    "subclass": (lambda: one(Scale(16, name="layer")), "no rule for Scale"),
    "over time": (
        lambda: one(layers.TimeDistributed(layers.Dense(16), name="layer")),
        "a Dense alone does the same",
    ),
    "grouped einsum": (
        lambda: one(layers.EinsumDense("abc,bcd->abd", (8, 16), name="layer")),
        "equation abc,bcd->abd",
    ),
    "small": (lambda: one(layers.Dense(1, name="layer")), "not cheaper even at rank 1"),
    "constrained": (constrained, "NonNeg"),
    "masked": (masked, "factorize before pruning"),
    "LoRA": (lora, "LoRA"),
    "quantized by Keras": (quantized, "quantized by Keras"),
    "tied": (tied, "its kernel is shared with 'tied'"),
}


@pytest.mark.parametrize("name", LEFT_ALONE)
def test_left_alone_and_why(name):
    make, reason = LEFT_ALONE[name]
    model = make()
    plan = tfc.low_rank_plan(model, 0.9)
    assert not plan.factorized
    assert reason in plan.left_alone[0].reason
    assert (plan.parameters_after, plan.macs_after) == (plan.parameters, plan.macs)
    assert plan.left_alone[0].path in str(plan)


def test_with_nothing_to_do_the_copy_is_equal_and_a_warning_says_so():
    model = one(layers.Dense(16, name="layer"))
    with pytest.warns(UserWarning, match="No layer of 'net' is factorized"):
        same = tfc.factorize(model, energy=1.0)
    x = RNG.normal(size=(2, 8, 16)).astype("float32")
    np.testing.assert_array_equal(same(x), model(x))
    assert tfc.low_rank_plan(model, energy=1.0).layers[0].reason == "not cheaper at rank 16"


def test_models_that_cannot_be_factorized_say_what_to_do():
    model = one(layers.Dense(16, name="layer"))
    with pytest.raises(TypeError, match=r"keras\.Model"):
        tfc.factorize(model.layers, energy=0.5)
    with pytest.raises(ValueError, match="Factorize first"):
        tfc.factorize(tfc.quantize_aware(model), energy=0.5)
    with pytest.raises(ValueError, match="not built"):
        tfc.factorize(keras.Sequential([layers.Dense(3)]), energy=0.5)
    model.get_layer("layer").kernel.assign(np.full((16, 16), np.nan))
    with pytest.raises(ValueError, match=r"'layer/kernel' of model .* holds 256 NaN"):
        tfc.factorize(model, energy=0.5)


class Subclassed(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.hidden = layers.Dense(32, name="hidden")

    def call(self, x):
        return keras.ops.tanh(self.hidden(x))


class Branching(Subclassed):
    def call(self, x, training=False):
        return self.hidden(x)


def test_subclassed_models():
    x = RNG.normal(size=(2, 32)).astype("float32")
    model = Subclassed()
    with pytest.raises(ValueError, match="call it on a batch"):
        tfc.factorize(model, 0.75)
    model(x)
    model.hidden.kernel.assign(low_rank((32, 32), (0,), 3))
    small = tfc.factorize(model, energy=1.0)
    np.testing.assert_allclose(small(x), model(x), **ROUNDING)
    model = Branching()
    model(x)
    with pytest.raises(ValueError, match="functional API"):
        tfc.low_rank_plan(model, 0.75)


def test_a_plan_belongs_to_a_model():
    model = convnet()
    plan = tfc.low_rank_plan(model, 0.75)
    with pytest.raises(ValueError, match=r"holds everything. Received besides: energy=0.5"):
        tfc.factorize(model, plan, energy=0.5)
    with pytest.raises(ValueError, match=r"another model \('net'\).*no such layer"):
        tfc.factorize(one(layers.Dense(16)), plan)
    x = RNG.normal(size=(2, 13, 13, 3)).astype("float32")
    again = tfc.factorize(keras.models.clone_model(model), plan)
    assert again.count_params() == plan.parameters_after
    np.testing.assert_array_equal(tfc.factorize(model, plan)(x), tfc.factorize(model, 0.75)(x))


@pytest.fixture(scope="module")
def factorized(tmp_path_factory):
    """A factorized net, trained for a step, and its files."""
    keras.utils.set_random_seed(0)
    x = image = keras.Input((12, 12, 3), name="image")
    x = layers.Conv2D(16, 3, strides=2, padding="same", activation="relu", name="stem")(x)
    x = layers.BatchNormalization(name="bn")(layers.Conv2D(24, 3, name="conv")(x))
    x = layers.Conv2D(32, 1, activation="relu", name="pointwise")(x)
    x = layers.Reshape((16, 32), name="tokens")(x)
    x = layers.EinsumDense("abc,cde->abde", (16, 4, 8), bias_axes="de", name="heads")(x)
    x = layers.EinsumDense("abde,dec->abc", (16, 32), bias_axes="c", name="merged")(x)
    x = layers.GlobalAveragePooling1D(name="pool")(x)
    model = keras.Model(image, layers.Dense(20, activation="softmax", name="classes")(x))
    plan = tfc.low_rank_plan(model, 0.75)
    assert [p.path for p in plan.factorized] == [
        "stem", "conv", "pointwise", "heads", "merged", "classes",
    ]  # fmt: skip
    small = tfc.factorize(model, plan)
    images = np.random.default_rng(0).random((32, 12, 12, 3), "float32")
    small.compile("adam", "sparse_categorical_crossentropy", jit_compile=False)
    before = small.get_weights()
    small.fit(images, np.arange(32) % 20, verbose=0)
    moved = [not np.array_equal(a, b) for a, b in zip(before, small.get_weights(), strict=True)]
    assert all(moved)
    folder = tmp_path_factory.mktemp("factorized")
    files = converters.convert_all(
        small,
        {
            folder / "float.tflite": converters.Float32(),
            folder / "int8.tflite": converters.Int8(calibration=images),
        },
    )
    dense = converters.convert(model, folder / "dense.tflite")
    return small, plan, images, files, dense


def test_the_result_is_an_ordinary_model(factorized, tmp_path):
    small, plan, images, _, _ = factorized
    assert {type(layer).__module__.split(".")[0] for layer in small.layers} == {"keras"}
    small.save(tmp_path / "small.keras")
    loaded = keras.models.load_model(tmp_path / "small.keras")
    np.testing.assert_array_equal(
        loaded.predict(images, verbose=0), small.predict(images, verbose=0)
    )
    check_costs(loaded, plan)


def test_the_files_are_smaller_and_agree(factorized):
    small, plan, images, (float32, int8), dense = factorized
    # 4 bytes a weight less. (A flatbuffer has some hundred bytes per tensor.)
    saved = 4 * (plan.parameters - plan.parameters_after)
    assert dense.bytes - float32.bytes > 0.5 * saved
    assert not int8.float_casts
    converters.verify(small, float32, images).raise_if_above(max_error=1e-5)
    # Probabilities near 1/20: steps of 1/256.
    converters.verify(small, int8, images).raise_if_above(lsb=3)


def test_it_can_be_made_quantization_aware(factorized):
    small, _, images, _, _ = factorized
    qat = tfc.quantize_aware(small)
    tfc.calibrate(qat, images)
    assert np.abs(qat(images) - small(images)).max() < 3 / 256
