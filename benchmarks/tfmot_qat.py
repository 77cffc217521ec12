"""One quantization-aware training by tensorflow-model-optimization, for qat_cifar10.py.

It needs Keras 2 (tf_keras), hence a process of its own. It is given the float weights in an .npz,
trains by the recipe of cifar10.py, and writes an int8 .tflite.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import cifar10
import numpy as np


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("net", choices=cifar10.NETS)
    parser.add_argument("weights", type=Path, help="an .npz of cifar10.named_weights")
    parser.add_argument("out", type=Path, help="the .tflite to write")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--train", type=int, help="train on the first so many images only")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--epochs", type=int, required=True)
    parser.add_argument("--rate", type=float, required=True)
    parser.add_argument("--batch", type=int, required=True)
    args = parser.parse_args()

    # TensorFlow reads this when it is first asked for Keras.
    os.environ["TF_USE_LEGACY_KERAS"] = "1"
    import tensorflow as tf
    import tensorflow_model_optimization as tfmot
    import tf_keras

    (images, labels), _ = cifar10.load(args.data)
    tf_keras.utils.set_random_seed(args.seed)
    model = cifar10.NETS[args.net](tf_keras)
    with np.load(args.weights) as weights:
        cifar10.set_named_weights(model, weights)
    model = tfmot.quantization.keras.quantize_model(model)
    cifar10.fine_tune(
        model,
        tf_keras,
        (images[: args.train], labels[: args.train]),
        seed=args.seed,
        epochs=args.epochs,
        rate=args.rate,
        batch=args.batch,
    )

    # A batch of one, as in the other files.
    call = tf.function(lambda image: model(image, training=False))
    concrete = call.get_concrete_function(tf.TensorSpec((1, 32, 32, 3), tf.float32, name="image"))
    converter = tf.lite.TFLiteConverter.from_concrete_functions([concrete], model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    part = args.out.with_suffix(".part")
    part.write_bytes(converter.convert())
    part.replace(args.out)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
