"""Every function with `filters=` rejects filters that select nothing, before it changes a model."""

import keras
import numpy as np
import pytest
from keras import layers

import tfcompress as tfc

X, Y = np.ones((8, 8), np.float32), np.ones((8, 2), np.float32)


def fitted(callback):
    def apply(model, filters):
        model.fit(X, Y, verbose=0, callbacks=[callback(filters)])

    return apply


FUNCTIONS = {
    "prune_weights": lambda model, filters: tfc.prune_weights(model, 0.5, filters=filters),
    "Prune": fitted(lambda filters: tfc.Prune(tfc.schedules.OneShot(0.5), filters)),
    "KeepZeros": fitted(tfc.KeepZeros),
    "regularize": lambda model, filters: tfc.regularize(
        model, keras.regularizers.L1(0.1), filters=filters
    ),
    "cluster_weights": lambda model, filters: tfc.cluster_weights(model, 4, filters),
    "KeepClusters": fitted(tfc.KeepClusters),
    "channel_groups": tfc.channel_groups,
    "prune_channels": lambda model, filters: tfc.prune_channels(model, 0.5, filters=filters),
    "prune_channels_gradually": lambda model, filters: tfc.prune_channels_gradually(
        model, 0.5, lambda model, step: None, filters=filters
    ),
    "low_rank_plan": lambda model, filters: tfc.low_rank_plan(model, 0.5, filters=filters),
    "factorize": lambda model, filters: tfc.factorize(model, 0.5, filters=filters),
    "quantize_aware": tfc.quantize_aware,
}
WRONG = {
    "misspelt name": (["block_1", "blok_2"], r"'blok_2' in `filters`.*Did you mean 'block_2'"),
    "regex": ("conv", r"filters='conv'\. There are: block_1, block_2, head\."),
    "function": (lambda layer: False, r"filters=<function .*There are: block_1, block_2, head\."),
}


def network():
    model = keras.Sequential(
        [
            keras.Input((8,)),
            layers.Dense(8, name="block_1"),
            layers.Dense(8, name="block_2"),
            layers.Dense(2, name="head"),
        ],
        name="net",
    )
    model.compile("sgd", "mse", jit_compile=False)
    return model


@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)
@pytest.mark.parametrize(("filters", "message"), WRONG.values(), ids=WRONG)
def test_filters_that_select_nothing_are_rejected_before_anything_changes(
    function, filters, message
):
    model = network()
    before = model.get_weights()
    with pytest.raises(ValueError, match=f"^No layer .*in 'net' matches .*{message}"):
        function(model, filters)
    for one, other in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert not any(getattr(layer, "kernel_regularizer", None) for layer in model.layers)
    assert not any(getattr(layer, "kernel_constraint", None) for layer in model.layers)
