"""Clustering against NumPy, and clusters that last through every way that Keras has to train."""

import json
import zipfile

import keras
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from keras import layers

import tfcompress as tfc
from tests.support.helpers import on_two_cpus
from tfcompress import converters, schedules
from tfcompress.clustering import k_means
from tfcompress.converters.passes.flatbuffer import unpack
from tfcompress.edge.system.tflite import sizes
from tfcompress.model.kernels import kernels

SLOW = pytest.mark.slow("the other ways to train")


def net(**options):
    return keras.Sequential(
        [
            keras.Input((12,)),
            layers.Dense(40, "tanh", name="hidden", **options),
            layers.Dense(3, name="head", **options),
        ]
    )


def compiled(model=None, rate=0.01, **how):
    model = net() if model is None else model
    model.compile(keras.optimizers.Adam(rate), "mse", **{"jit_compile": False, **how})
    return model


def fit(model, data, *callbacks, epochs=2):
    """Eight steps an epoch."""
    return model.fit(
        *data, batch_size=8, epochs=epochs, verbose=0, shuffle=False, callbacks=list(callbacks)
    )


def weights(model):
    return [kernel.numpy().copy() for kernel in kernels(model)]


def partition(array):
    """The cluster of each weight, numbered by the first weight of each."""
    _, first, index = np.unique(array, return_index=True, return_inverse=True)
    return first[index.ravel()]


def check_kept(model, before):
    """The same clusters and zeros, other values."""
    for old, new in zip(before, weights(model), strict=True):
        np.testing.assert_array_equal(partition(new), partition(old))
        np.testing.assert_array_equal(new == 0, old == 0)
        assert (new != old).any()
        assert np.isfinite(new).all()


def lloyd(values, clusters):
    """k-means as the textbook has it."""
    values = values.astype(np.float64)
    centres = np.linspace(values.min(), values.max(), clusters)
    for _ in range(300):
        nearest = np.abs(values[:, None] - centres).argmin(1)
        for cluster in set(nearest):
            centres[cluster] = values[nearest == cluster].mean()
    return np.unique(centres[nearest])


class TestKMeans:
    @pytest.mark.parametrize("clusters", [1, 2, 5, 16])
    @pytest.mark.parametrize("draw", ["normal", "standard_cauchy", "uniform"])
    def test_is_lloyds(self, draw, clusters):
        values = getattr(np.random.default_rng(0), draw)(size=400).astype(np.float32)
        # Sums in another order.
        np.testing.assert_allclose(k_means(values, clusters), lloyd(values, clusters), rtol=1e-9)

    @given(
        hnp.arrays(np.float32, st.integers(1, 40), elements=st.floats(-8, 8, width=16)),
        st.integers(1, 9),
    )
    @settings(deadline=None)
    def test_centres_are_means_of_what_is_nearest(self, values, clusters):
        centres = k_means(values, clusters)
        assert 1 <= centres.size <= clusters
        assert (np.diff(centres) > 0).all()
        nearest = np.searchsorted((centres[1:] + centres[:-1]) / 2, values)
        for cluster, centre in enumerate(centres):
            # Differences of running sums up to 320 in float64.
            assert values[nearest == cluster].mean(dtype=float) == pytest.approx(centre, abs=1e-12)

    def test_few_values_are_their_own_centres(self):
        assert k_means(np.float32([3, 1, 3, 2]), 4).tolist() == [1, 2, 3]


class TestClusterWeights:
    def test_every_weight_gets_the_nearest_centre(self):
        model = net()
        before = weights(model)
        tfc.cluster_weights(model, 8)
        for old, new in zip(before, weights(model), strict=True):
            centres = np.unique(new)
            assert centres.size <= 8
            assert (np.abs(new - old) <= np.abs(old[..., None] - centres).min(-1) + 1e-7).all()

    def test_zeros_stay_and_are_one_of_the_values(self):
        model = net()
        tfc.prune_weights(model, 0.6)
        before = weights(model)
        done = tfc.cluster_weights(model, 2)
        for old, new, row in zip(before, weights(model), done.kernels, strict=True):
            np.testing.assert_array_equal(new == 0, old == 0)
            assert np.unique(new).size == row.values == 2
            assert new[new != 0].mean(dtype=float) == pytest.approx(old[old != 0].mean(dtype=float))
            assert row.zeros == np.sum(old == 0)

    def test_what_it_says(self):
        model = net()
        hidden, head = weights(model)
        done = tfc.cluster_weights(model, 4, filters="hidden")
        np.testing.assert_array_equal(weights(model)[1], head)
        [row] = done.kernels
        change = weights(model)[0] - hidden
        assert row.error == pytest.approx(np.sqrt(np.mean(change**2) / np.mean(hidden**2)))
        assert (row.path, row.size, row.bytes) == ("hidden/kernel", 480, 1920)
        assert row.gzip_bytes < row.gzip_before / 4
        assert json.loads(json.dumps(done.to_dict()))["kernels"][0]["values"] == 4
        text = " ".join(str(done).split())
        assert "as large and as fast as before" in text
        assert "Only its gzip is smaller" in text

    def test_twice_changes_nothing(self):
        model = net()
        tfc.cluster_weights(model)
        before = weights(model)
        assert [row.error for row in tfc.cluster_weights(model).kernels] == [0.0, 0.0]
        for old, new in zip(before, weights(model), strict=True):
            np.testing.assert_array_equal(old, new)

    @pytest.mark.parametrize("clusters", [1, 257, 0])
    def test_bad_numbers(self, clusters):
        with pytest.raises(ValueError, match=f"2 to 256. Received: clusters={clusters}"):
            tfc.cluster_weights(net(), clusters)
        with pytest.raises(TypeError, match="must be an int"):
            tfc.cluster_weights(net(), 4.0)

    def test_nan_changes_nothing(self):
        model = net()
        model.layers[1].kernel.assign(np.full((40, 3), np.nan))
        before = weights(model)[0]
        with pytest.raises(ValueError, match=r"head/kernel.*NaN"):
            tfc.cluster_weights(model, 4)
        np.testing.assert_array_equal(weights(model)[0], before)

    def test_a_kernel_of_zeros_and_one_of_equal_weights(self, data):
        model = compiled()
        model.layers[0].kernel.assign(np.zeros((12, 40)))
        model.layers[1].kernel.assign(np.full((40, 3), 0.5))
        tfc.cluster_weights(model, 2)
        assert [np.unique(w).tolist() for w in weights(model)] == [[0.0], [0.5]]
        fit(model, data, tfc.KeepClusters())
        assert [np.unique(w).size for w in weights(model)] == [1, 1]
        assert not weights(model)[0].any()


@pytest.mark.slow("trains a net and measures its files")
def test_what_it_is_worth_in_files(tmp_path):
    """The bytes of a file stay, its gzip shrinks; batch normalization multiplies float values."""
    x = keras.Input((8, 8, 32), name="x")
    y = layers.BatchNormalization(name="bn")(layers.Conv2D(64, 3, use_bias=False, name="conv")(x))
    model = keras.Model(x, layers.Dense(16, name="head")(layers.Flatten()(y)))
    rng = np.random.default_rng(0)
    model.get_layer("bn").gamma.assign(rng.uniform(0.5, 2.0, 64))
    precisions = [
        converters.Float32(),
        converters.Int8(calibration=rng.normal(size=(8, 8, 8, 32)).astype(np.float32)),
    ]
    found = []
    for name in ("before", "after"):
        paths = {tmp_path / f"{name}_{p.name}.tflite": p for p in precisions}
        found.append([sizes(file) for file in converters.convert_all(model, paths, batch_size=1)])
        tfc.cluster_weights(model, 16)
    for (before, gzip_before), (after, gzip_after) in zip(*found, strict=True):
        assert after == before
        assert gzip_after < 0.7 * gzip_before
    float32, int8 = (channels(tmp_path / f"after_{p.name}.tflite") for p in precisions)
    for kernel in (float32, int8):
        assert all(np.unique(channel).size <= 16 for channel in kernel)
    assert np.unique(float32).size > 500  # Each of 64 channels has a factor of its own.
    assert np.unique(int8).size < 64


def channels(path):
    """The convolution's kernel as a file has it, a row for each output channel."""
    model = unpack(path.read_bytes())
    [kernel] = [t for t in model.subgraphs[0].tensors if list(t.shape) == [64, 3, 3, 32]]
    dtype = {schema.TensorType.FLOAT32: np.float32, schema.TensorType.INT8: np.int8}[kernel.type]
    return np.frombuffer(model.buffers[kernel.buffer].data.tobytes(), dtype).reshape(64, -1)


class TestKeepClusters:
    def test_the_step_is_the_mean_of_the_optimizers(self, data):
        """One step of SGD from NumPy."""
        model = net()
        tfc.cluster_weights(model, 4)
        twin = keras.models.clone_model(model)
        twin.set_weights(model.get_weights())
        for each, callbacks in ((model, [tfc.KeepClusters()]), (twin, [])):
            each.compile(keras.optimizers.SGD(0.1), "mse", jit_compile=False)
            each.fit(*data, batch_size=64, verbose=0, callbacks=callbacks)
        for kept, free in zip(kernels(model), kernels(twin), strict=True):
            kept, free = kept.numpy(), free.numpy().astype(np.float64)
            assert np.unique(kept).size == 4
            for value in np.unique(kept):
                # The two gradients are summed in other orders.
                assert free[kept == value].mean() == pytest.approx(value, abs=1e-7)

    def test_what_does_not_learn_does_not_drift(self, data):
        """The mean of a large cluster is exact."""
        model = compiled(keras.Sequential([keras.Input((12,)), layers.Dense(20_000)]), rate=0.0)
        tfc.cluster_weights(model, 3)
        before = weights(model)
        x, _ = data
        model.fit(x[:8], np.zeros((8, 20_000)), verbose=0, callbacks=[tfc.KeepClusters()])
        np.testing.assert_array_equal(weights(model)[0], before[0])

    @pytest.mark.parametrize(
        "how",
        [
            {"run_eagerly": True},
            pytest.param({"steps_per_execution": 3}, marks=SLOW),
            pytest.param({"jit_compile": True}, marks=SLOW),
            {"jit_compile": True, "steps_per_execution": 4},
        ],
        ids=str,
    )
    def test_compiled_or_not(self, data, how):
        model = compiled(**how)
        tfc.prune_weights(model, 0.5, filters="hidden")
        tfc.cluster_weights(model)
        before = weights(model)
        fit(model, data, tfc.KeepClusters())
        check_kept(model, before)

    @pytest.mark.parametrize(
        "policy",
        ["mixed_float16", *(pytest.param(p, marks=SLOW) for p in ("mixed_bfloat16", "float64"))],
    )
    def test_precision(self, data, policy):
        model = net(dtype=policy)
        optimizer = keras.optimizers.SGD(0.1, gradient_accumulation_steps=2)
        model.compile(optimizer, "mse", jit_compile=False, auto_scale_loss=True)
        tfc.cluster_weights(model)
        before = weights(model)
        fit(model, data, tfc.KeepClusters(), epochs=4)
        check_kept(model, before)

    def test_bfloat16_weights(self, data):
        model = net(dtype="bfloat16")
        # Adam cannot learn in bfloat16, whose nearest to its 0.999 is 1.
        model.compile(keras.optimizers.SGD(0.1), "mse", jit_compile=False)
        tfc.cluster_weights(model, 4)
        before = weights(model)
        fit(model, data, tfc.KeepClusters())
        for old, new in zip(before, weights(model), strict=True):
            assert (new != old).any()
            # bfloat16 has 8 bits: clusters may meet, but not part.
            assert all(np.unique(new[old == value]).size == 1 for value in np.unique(old))

    def test_averaged_weights_that_remember_what_was_before(self, data):
        model = net()
        optimizer = keras.optimizers.Adam(0.01, use_ema=True, ema_momentum=0.99)
        model.compile(optimizer, "mse", jit_compile=False)
        fit(model, data)
        tfc.prune_weights(model, 0.5, filters="hidden")
        tfc.cluster_weights(model, 4)
        before = weights(model)
        fit(model, data, tfc.KeepClusters())
        check_kept(model, before)

    def test_interrupted_and_resumed_ends_with_the_same_weights(self, data, tmp_path):
        class PowerCut(keras.callbacks.Callback):
            def on_epoch_begin(self, epoch, logs=None):
                if epoch == 2:
                    raise RuntimeError("power cut")

        start = net()
        tfc.cluster_weights(start, 8)

        def train(*callbacks):
            model = compiled(keras.models.clone_model(start))
            model.set_weights(start.get_weights())
            fit(model, data, tfc.KeepClusters(), *callbacks, epochs=4)
            return model

        whole = train()
        folder = str(tmp_path)
        with pytest.raises(RuntimeError, match="power cut"):
            train(keras.callbacks.BackupAndRestore(folder), PowerCut())
        resumed = train(keras.callbacks.BackupAndRestore(folder))
        for left, right in zip(weights(resumed), weights(whole), strict=True):
            np.testing.assert_array_equal(left, right)

    def test_ctrl_c_leaves_nothing_behind_after_the_next_fit(self, data):
        class CtrlC(keras.callbacks.Callback):
            def on_train_batch_begin(self, batch, logs=None):
                if batch == 3:
                    raise KeyboardInterrupt

        own = keras.constraints.MaxNorm(1.0)
        model = compiled(keras.Sequential([keras.Input((12,)), layers.Dense(3)]))
        model.layers[0].kernel.constraint = own
        tfc.cluster_weights(model, 4)
        keep = tfc.KeepClusters()
        with pytest.raises(KeyboardInterrupt):
            fit(model, data, keep, CtrlC())
        assert model.layers[0].kernel.constraint is not own
        before = weights(model)
        fit(model, data, keep)
        check_kept(model, before)
        assert model.layers[0].kernel.constraint is own

    def test_saved_and_loaded(self, data, tmp_path):
        path = tmp_path / "model.keras"
        model = compiled()
        tfc.prune_weights(model, 0.5)
        tfc.cluster_weights(model)
        fit(model, data, tfc.KeepClusters(), keras.callbacks.ModelCheckpoint(str(path)))
        with zipfile.ZipFile(path) as file:
            config = file.read("config.json").decode()
        assert not any(word in config for word in ("tfcompress", "cluster", "constraint_"))
        loaded = keras.models.load_model(path)
        before = weights(loaded)
        for left, right in zip(before, weights(model), strict=True):
            np.testing.assert_array_equal(left, right)
        fit(loaded, data, tfc.KeepClusters())
        check_kept(loaded, before)

    def test_the_users_constraint_comes_first(self, data):
        model = compiled(keras.Sequential([keras.Input((12,)), layers.Dense(3)]))
        model.layers[0].kernel.constraint = keras.constraints.NonNeg()
        model.layers[0].kernel.assign(np.abs(weights(model)[0]))
        tfc.cluster_weights(model, 4)
        fit(model, data, tfc.KeepClusters(), epochs=4)
        [after] = weights(model)
        assert np.unique(after).size <= 4
        assert (after >= 0).all()
        assert isinstance(model.layers[0].kernel.constraint, keras.constraints.NonNeg)

    @pytest.mark.parametrize("first", [True, False])
    def test_prune_goes_on_meanwhile(self, data, first):
        """Each weight is its cluster's value or zero, and zeros pull no cluster down."""
        model = compiled(rate=0.001)
        tfc.cluster_weights(model, 8)
        before = weights(model)
        schedule = schedules.Polynomial(0.0, 0.5, begin=0, end=12, frequency=2)
        callbacks = [tfc.Prune(schedule), tfc.KeepClusters()]
        history = fit(model, data, *(callbacks if first else callbacks[::-1]))
        assert history.history["sparsity"][-1] == 0.5
        for old, new in zip(before, weights(model), strict=True):
            assert np.sum(new == 0) == new.size // 2
            for value in np.unique(old):
                left = np.unique(new[(old == value) & (new != 0)])
                assert left.size <= 1
                # Adam moves a weight by at most about 0.001 a step, for 16 steps.
                assert np.all(np.abs(left - value) < 0.02)
        assert all(kernel.variable.constraint is None for kernel in kernels(model))

    def test_keep_zeros_too(self, data):
        model = compiled()
        tfc.prune_weights(model, 0.75)
        tfc.cluster_weights(model, 4)
        before = weights(model)
        history = fit(model, data, tfc.KeepClusters(), tfc.KeepZeros())
        assert history.history["sparsity"] == [0.75, 0.75]
        check_kept(model, before)

    def test_kernels_that_are_not_clustered_are_left_alone(self, data):
        model = compiled()
        tfc.cluster_weights(model, 4, filters="head")
        fit(model, data, tfc.KeepClusters())
        hidden, head = weights(model)
        assert np.unique(hidden).size > 400
        assert np.unique(head).size == 4
        with pytest.raises(ValueError, match=r"No layer with a trainable kernel .*nothing"):
            fit(model, data, tfc.KeepClusters("nothing"))

    def test_nothing_to_keep(self, data):
        with pytest.warns(UserWarning, match="Call cluster_weights"):
            fit(compiled(), data, tfc.KeepClusters())

    def test_convolutions_within_a_distiller(self):
        def net():
            x = keras.Input((6, 6, 2))
            y = layers.GlobalAveragePooling2D()(layers.SeparableConv2D(8, 3, name="conv")(x))
            return keras.Model(x, layers.Dense(3, "softmax")(y))

        rng = np.random.default_rng(0)
        images, labels = rng.normal(size=(32, 6, 6, 2)), rng.integers(0, 3, 32)
        student = net()
        tfc.cluster_weights(student, 4, depthwise=True)
        before = [k.numpy().copy() for k in kernels(student, depthwise=True)]
        distiller = tfc.Distiller(net(), student)
        distiller.compile("adam", "sparse_categorical_crossentropy", jit_compile=False)
        distiller.fit(images, labels, verbose=0, callbacks=[tfc.KeepClusters()])
        for old, kernel in zip(before, kernels(student, depthwise=True), strict=True):
            np.testing.assert_array_equal(partition(kernel.numpy()), partition(old))
            assert (kernel.numpy() != old).any()

    @pytest.mark.slow("starts a process with two devices")
    def test_distributed_over_two_cpus(self):
        on_two_cpus("""
            import tfcompress as tfc

            keras.utils.set_random_seed(0)
            with strategy.scope():
                layers = [keras.layers.Dense(40, "tanh"), keras.layers.Dense(3)]
                model = keras.Sequential([keras.Input((12,)), *layers])
                model.compile(keras.optimizers.Adam(0.01), "mse", jit_compile=False)
            x = np.random.normal(size=(64, 12)).astype("float32")
            tfc.prune_weights(model, 0.5)
            tfc.cluster_weights(model, 8)
            before = [layer.kernel.numpy() for layer in layers]
            keep = [tfc.KeepClusters(), tfc.KeepZeros()]
            model.fit(x, np.tanh(x[:, :3]), batch_size=8, epochs=2, verbose=0, callbacks=keep)
            for layer, old in zip(layers, before):
                replicas = [value.numpy() for value in layer.kernel.value.values]
                assert len(replicas) == 2
                np.testing.assert_array_equal(*replicas)
                new = replicas[0]
                assert (new != old).any()
                np.testing.assert_array_equal(new == 0, old == 0)
                assert np.unique(new).size == np.unique(old).size
                for value in np.unique(old):
                    assert np.unique(new[old == value]).size == 1
        """)
