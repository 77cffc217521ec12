"""Child process: a float .tflite file -> an integer file, without a Keras model or TensorFlow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..passes.base import Refused
from ..passes.flatbuffer import pack, unpack
from ..passes.graph import graphs
from ..passes.signatures import sign
from .histogram import NotFinite
from .kernel_rounding import KernelsRefused
from .observed import why_unobservable
from .post_training import Lowered, post_training
from .read import describe, load_error
from .tensor_values import load

Json = dict[str, Any]


def job(request: Json) -> Json:
    """Write the file at `request["out"]`, or say in "refused", "missing" or "error" why not."""
    path, out = Path(request["path"]), Path(request["out"])
    if fault := load_error(path):
        return {"refused": f"the runtime does not load it: {fault}"}
    try:
        made = quantized(path.read_bytes(), request)
    except (Refused, KernelsRefused, NotFinite, RuntimeError) as error:  # the last: a library's
        return {"refused": str(error)}
    except ImportError as error:
        return {"missing": str(error)}
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"}
    out.write_bytes(made.content)
    return {
        "file": {**describe(made.content), "load_error": load_error(out)},
        "kept_float": list(made.kept_float),
        "kept_weights": dict(made.kept_weights),
    }


def quantized(content: bytes, request: Json) -> Lowered:
    """Quantize a file.

    Args:
        content: A float file.
        request: The samples as `load` takes them, or None; the fields of `ConverterOptions`
            ("options") and of `KernelRequest` ("kernels"), which count with samples only.

    Returns:
        The file: without samples the float file, ready for passes over its weights.

    Raises:
        Refused: Our calibration cannot see all tensors of the file.
        NotFinite: A tensor becomes NaN.
        KernelsRefused: There is no file as "kernels" asks for.
        ImportError: TensorFlow is not installed.
    """
    model = unpack(content)
    for graph in graphs(model):
        graph.fold_float16()
    sign(graphs(model)[0])
    if request["samples"] is None:
        return Lowered(pack(model))
    if why := why_unobservable(model):
        raise Refused(why)
    samples = load(request["samples"])
    made = post_training(pack(model), request["options"], samples, request["kernels"])
    assert made is not None  # as its tensors can be observed
    return made
