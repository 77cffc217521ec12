"""`verify`: a Keras model and its .tflite file on the same samples."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tfcompress.converters.file.read import inspect
from tfcompress.edge import Runner
from tfcompress.edge.arguments import check_bool, check_choice, check_text, check_threads
from tfcompress.edge.engines.base import DELEGATES
from tfcompress.edge.inputs import as_real
from tfcompress.edge.system.tflite import check
from tfcompress.model.checks import check_built
from tfcompress.model.functionalize import with_graph
from tfcompress.model.samples import Array, load_samples, thin, whole_batches
from tfcompress.model.signature import Signature
from tfcompress.model.signature import signature as signature_of

from .by_layer import layer_errors
from .file_outputs import output_scales, runner_outputs
from .hybrid import speed_notes
from .judgement import SAMPLES
from .output_error import compare
from .outputs import BATCH, keras_outputs
from .verified import Verification

_POS = "input_pos"
"""An input of each language model with a cache."""


def verify(
    model: keras.Model,
    path: str | os.PathLike[str],
    samples: Any,
    delegate: str = "xnnpack",
    threads: int | None = None,
    *,
    by_layer: bool = False,
    signature: str | None = None,
) -> Verification:
    """Compare the outputs of a .tflite file with those of its Keras model.

    Keras runs in inference mode and in the precision of the model, the file in a child process.
    Outputs are matched by name.

    >>> import keras, numpy as np, tempfile
    >>> from tfcompress import converters
    >>> model = keras.Sequential([keras.Input((4,), name="x"), keras.layers.Dense(2, name="y")])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = converters.convert(model, f"{folder}/tiny.tflite")
    ...     found = converters.verify(model, file, np.eye(4, dtype="float32"))
    >>> found.raise_if_above(max_error=1e-6)["y"].top1
    1.0

    Args:
        model: The model that the file was made from.
        path: The file.
        samples: An array (for one input), a dict of arrays by input name, a generator or
            `tf.data.Dataset` of either, or the path of an .npz file. All samples are used.
        delegate: "xnnpack", "reference" or "gpu". Defaults to "xnnpack".
        threads: CPU threads. Defaults to None, the choice of the runtime.
        by_layer: Whether to compare the output of each layer, too, on up to 32 of the samples: the
            way to find where an error enters. The file then also runs without a delegate, since
            delegates hide what is inside. Defaults to False.
        signature: Name of the signature to run, such as "serving_128" of a file that was converted
            at several shapes. Defaults to None, the first, which `by_layer` wants.

    Returns:
        The errors of each output.

    Raises:
        ModelFileError: There is no readable .tflite file at `path`.
        ModelRefused: The runtime cannot run the file, or died of it.
        ValueError: The samples do not fit the model, the file was made from another model or has no
            such signature, or `by_layer` is given for a subclassed model whose `call` cannot be
            traced, or with a signature.
    """
    check_choice("delegate", delegate, DELEGATES.names())
    check_threads(threads)
    check_bool("by_layer", by_layer)
    if signature is not None:
        check_text("signature", signature)
        if by_layer:
            raise ValueError(
                "`by_layer` reads the first signature of a file. Received: "
                f"signature={signature!r} with by_layer=True"
            )
    found = inspect(check(path))
    keys = [s.key for s in found.signatures]
    if signature is not None:
        check_choice("signature", signature, keys)
    model = check_built(model)
    graph = with_graph(model, whole=True) if by_layer else None
    call = signature_of(model)
    arrays = load_samples(samples, call.inputs)
    count = len(next(iter(arrays.values())))
    with Runner(
        path, delegate=delegate, threads=threads, signature=signature, isolated=True
    ) as runner:
        _check_inputs(call, runner, found.path)
        expected = keras_outputs(call, arrays)
        actual = runner_outputs(runner, arrays, BATCH)
        parts = [] if graph is None else _parts(runner, thin(arrays, SAMPLES))
    if set(expected) != set(actual):
        raise ValueError(
            f"{found.path} is not a file of model '{model.name}': its outputs are "
            f"{sorted(actual)}, the model's are {sorted(expected)}"
        )
    scales = output_scales(found, signature)
    return Verification(
        found.path,
        delegate,
        count,
        tuple(
            compare(name, value, actual[name], scales.get(name)) for name, value in expected.items()
        ),
        () if graph is None else layer_errors(graph, call, found, parts),
        notes=speed_notes(found) if delegate == "xnnpack" else (),
    )


def _parts(runner: Runner, arrays: dict[str, Array]) -> list[tuple[dict[str, Array], Any]]:
    """Return samples in the batches that a file takes, and the same in the file's own types."""
    fixed = {info.shape[0] for info in runner.inputs}.pop()
    filled = whole_batches(arrays, fixed or 1)
    encoded = runner.split(runner.encode(as_real(filled, runner.inputs)), fixed or BATCH)
    rows = np.cumsum([0, *(len(next(iter(part.values()))) for part in encoded)])
    return [
        ({name: array[start:stop] for name, array in filled.items()}, part)
        for start, stop, part in zip(rows[:-1], rows[1:], encoded, strict=True)
    ]


def _check_inputs(call: Signature, runner: Runner, path: Path) -> None:
    wanted, given = {s.name for s in call.inputs}, {info.name for info in runner.inputs}
    if wanted != given:
        how = ". Compare a file of convert_generator by verify_generator" if _POS in given else ""
        raise ValueError(
            f"{path} is not a file of this model: its inputs are {sorted(given)}, the model's are "
            f"{sorted(wanted)}{how}"
        )
