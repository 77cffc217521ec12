"""Single int8 ops of TFLite, computed in Keras as TFLite computes them."""
