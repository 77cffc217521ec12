"""`Parameter`: a weight of a layer that was opened, as a layer of its own."""

from __future__ import annotations

from typing import Any

import keras

__all__ = ["Parameter"]


@keras.saving.register_keras_serializable("tfcompress")
class Parameter(keras.layers.Layer):  # type: ignore[misc]
    """Gives a weight, whatever it is called with.

    A layer that holds layers may have weights of its own, such as the token that a vision
    transformer puts before the others. `open_layers` makes a `Parameter` of each, on the same
    variable.

    >>> scale = Parameter((4,), keras.Variable([1.0, 2.0, 3.0, 4.0]))
    >>> [float(x) for x in scale(keras.ops.zeros((2, 8)))]
    [1.0, 2.0, 3.0, 4.0]

    Args:
        shape: Shape of the weight, a tuple of ints.
        variable: The weight. Defaults to None: a new one of zeros, for a file to be loaded into.
        **options: Other arguments of a Keras layer, such as `trainable` and `dtype`.
    """

    def __init__(
        self, shape: tuple[int, ...], variable: keras.Variable | None = None, **options: Any
    ) -> None:
        super().__init__(**options)
        self.shape = tuple(shape)
        if variable is None:
            variable = self.add_weight(
                shape=self.shape,
                initializer="zeros",
                dtype=self.variable_dtype,
                trainable=self.trainable,
                name="weight",
            )
        self.weight = variable
        self.supports_masking = True
        self.built = True

    def call(self, anchor: Any) -> Any:
        """Return the weight; the argument only says where in the graph of a model."""
        return keras.ops.copy(self.weight.value)

    def compute_mask(self, anchor: Any, mask: Any = None) -> None:
        """Return None: a weight has no mask."""

    def compute_output_spec(self, anchor: Any) -> keras.KerasTensor:
        """Return shape and dtype of the weight."""
        return keras.KerasTensor(self.shape, self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments but the weight, which is in the file."""
        return {**super().get_config(), "shape": list(self.shape)}
