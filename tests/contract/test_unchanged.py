"""No function changes the user's model, but for the weights that it is there to change."""

import json
from unittest import mock

import keras
import numpy as np
import pytest
from keras import layers

import tfcompress as tfc
from tfcompress import budgets, converters, distill, importance
from tfcompress.model.keras_private import flat_layers, number_of_calls

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(16, 6, 6, 2)).astype("float32"), RNG.integers(0, 3, 16)
LOSS = "sparse_categorical_crossentropy"


def network(name="net"):
    """Trained for a step, with a frozen layer, a nested model, and weights that are not alike."""
    inner = keras.Sequential(
        [keras.Input((6, 6, 8)), layers.Conv2D(8, 1, name="inside"), layers.ReLU()], name="inner"
    )
    x = keras.Input((6, 6, 2), name="image")
    y = layers.Conv2D(8, 3, padding="same", activation="relu", name="first")(x)
    y = layers.BatchNormalization(name="norm")(inner(y))
    y = layers.GlobalAveragePooling2D(name="pool")(layers.Dropout(0.2, name="drop")(y))
    y = layers.Dense(16, "relu", name="wide", kernel_constraint="non_neg")(y)
    model = keras.Model(x, layers.Dense(3, "softmax", name="head")(y), name=name)
    model.get_layer("first").trainable = False
    model.compile(keras.optimizers.Adam(0.01), LOSS, metrics=["accuracy"], run_eagerly=True)
    model.fit(X, Y, verbose=0)
    return model


def state(model):
    """Everything about a model that a user can see, with the name of each part."""
    optimizer = model.optimizer
    tracked = [*model.variables, *optimizer.variables, *model.metrics_variables]
    found = {
        "config": json.dumps(model.get_config(), default=repr),
        "compile config": json.dumps(model.get_compile_config(), default=repr),
        "parts of compile": [id(part) for part in (optimizer, model.loss, *model.metrics)],
        "train_function": id(model.train_function),
        "trainable weights": [variable.path for variable in model.trainable_weights],
        "losses": len(model.losses),
        "attributes": sorted(vars(model)),
        "globals": (keras.config.floatx(), keras.config.dtype_policy().name),
    }
    for layer in flat_layers(model):
        found[f"layer {layer.name}"] = (
            id(layer), layer.trainable, layer.dtype_policy.name, number_of_calls(layer),
            sorted(vars(layer)),
        )  # fmt: skip
    for variable in tracked:
        constraint = id(getattr(variable, "constraint", None))
        found[f"variable {variable.path}"] = (id(variable), variable.trainable, constraint)
    return found, {f"{v.path} {i}": v.numpy().copy() for i, v in enumerate(tracked)}


def changes(before, after):
    """Return the names of the parts that differ, weights included."""
    (old, values), (new, others) = before, after
    found = {key for key in old.keys() | new.keys() if old.get(key) != new.get(key)}
    return found | {key for key in values if not np.array_equal(values[key], others.get(key))}


def distilled(teacher, losses=None):
    student = tfc.prune_channels(teacher, 0.5)
    made = tfc.Distiller(teacher, student, losses)
    made.compile("adam", LOSS, run_eagerly=True)
    made.fit(X, Y, verbose=0)
    made.evaluate(X, Y, verbose=0)


def with_data(importance, *data):
    return lambda model: tfc.prune_channels(model, 0.5, importance=importance, data=data or X)


UNCHANGED = {
    "summary": tfc.summary,
    "channel_groups": lambda model: str(tfc.channel_groups(model)),
    "prune_channels": lambda model: tfc.prune_channels(model, budgets.Macs(0.5)),
    "activation_mean": with_data("activation_mean"),
    "taylor": with_data("taylor", X, Y),
    "bn_scale": lambda model: importance.bn_scale(model, tfc.channel_groups(model).prunable),
    "prune_channels_gradually": lambda model: tfc.prune_channels_gradually(
        model, 0.5, lambda small, step: None, steps=2
    ),
    "equalize": lambda model: tfc.equalize(model, X),
    "low_rank_plan": lambda model: str(tfc.low_rank_plan(model, 0.5)),
    "factorize": lambda model: tfc.factorize(model, 0.5),
    "quantize_aware": lambda model: tfc.strip(tfc.calibrate(tfc.quantize_aware(model), X)),
    "Distiller": distilled,
    "Features": lambda model: distilled(model, distill.Features("inner/inside", "inner/inside")),
    "self_distiller": lambda model: tfc.self_distiller(model, distill.Features("norm", "norm")),
}


@pytest.fixture(scope="module")
def model():
    return network()


@pytest.mark.parametrize("function", UNCHANGED.values(), ids=UNCHANGED)
def test_a_model_that_is_read_stays_as_it_is(function, model):
    before = state(model)
    function(model)
    assert not changes(before, state(model))


@pytest.mark.slow("converts twice")
def test_convert_and_verify_leave_the_model_as_it_is(model, tmp_path):
    before = state(model)
    wanted = {
        tmp_path / "float16.tflite": converters.Float16(),
        tmp_path / "int8.tflite": converters.Int8(calibration=X),
    }
    file, _ = converters.convert_all(model, wanted, batch_size=1)
    converters.verify(model, file, X)
    assert not changes(before, state(model))


def fitted(*callbacks):
    return lambda model: model.fit(X, Y, verbose=0, callbacks=list(callbacks))


# What changes weights, and which.
IN_PLACE = {
    "prune_weights": (lambda model: tfc.prune_weights(model, 0.5), "kernel"),
    "cluster_weights": (lambda model: tfc.cluster_weights(model, 4), "kernel"),
    "Prune": (fitted(tfc.Prune(tfc.schedules.OneShot(0.5))), ""),
    "KeepClusters": (fitted(tfc.KeepClusters()), ""),
}


@pytest.mark.parametrize(("function", "names"), IN_PLACE.values(), ids=IN_PLACE)
def test_what_changes_weights_changes_nothing_else(function, names):
    model = network()
    if names == "":
        tfc.cluster_weights(model, 4)
    before = state(model)
    function(model)
    changed = changes(before, state(model))
    assert changed
    # The step was traced without the masks; a later `fit` traces it again.
    rest = [key for key in changed - {"train_function"} if key not in before[1]]
    assert not rest
    assert all(names in key for key in changed if key in before[1])


def test_the_comparison_sees_changes():
    """Each in turn, on one model, and each is named."""
    model = network()
    for change, name in (
        (lambda: setattr(model.get_layer("wide"), "trainable", False), "layer wide"),
        (lambda: model.get_layer("wide").bias.assign(np.ones(16)), "wide/bias"),
        (lambda: model.get_layer("wide")(np.ones((1, 8))), ""),
        (lambda: model.get_layer("wide")(keras.Input((8,))), "layer wide"),
        (lambda: model.compile("sgd", "mse"), "compile config"),
        (lambda: setattr(model.get_layer("wide"), "_mark", mock.sentinel), "layer wide"),
    ):
        before = state(model)
        change()
        found = changes(before, state(model))
        assert any(name in key for key in found) if name else not found, (name, found)
