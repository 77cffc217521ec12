"""A SavedModel -> .tflite files, by the TensorFlow converter in a child process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tfcompress.converters.export.free_sizes import how_to_fix_sizes
from tfcompress.converters.export.layer_names import layer_at
from tfcompress.converters.file.model import Inspection
from tfcompress.converters.jobs.run import ChildError, run
from tfcompress.converters.precisions.base import Precision
from tfcompress.edge.system.scratch import raise_if_full
from tfcompress.model.samples import whole_batches

from .diagnostics import explain_crash, explain_error
from .errors import ConversionError
from .finishing import Lowered
from .preparation import Prepared


def lower(
    prepared: Prepared,
    precisions: Mapping[Path, Precision],
    saved_models: Sequence[Path],
    folder: Path,
    timeout: float | None,
) -> list[Lowered]:
    """Make the file of each precision; one float file serves all that can be made from it.

    Args:
        prepared: The model that was saved, and its calibration samples.
        precisions: The precisions by path.
        saved_models: Folder of the SavedModel for each file.
        folder: Folder for the files.
        timeout: Seconds for the child process; None for no limit.

    Returns:
        The files, which the runtime loads, in the order of the precisions.

    Raises:
        ConversionError: The converter refuses the model, crashes, or makes a file that the runtime
            does not load.
    """
    chosen, model = list(precisions.values()), prepared.model
    progress = folder / "progress"
    samples = _save_samples(prepared, folder)
    files = [
        {
            "path": str(folder / f"{index}.tflite"),
            "saved_model": str(saved_models[index]),
            "options": precision.converter_options().to_dict(),
            # Weights alone are stored by a pass over the float file, which takes the samples.
            "samples": None if precision.weights() else samples[index],
            "kernels": prepared.kernels[index],
        }
        for index, precision in enumerate(chosen)
    ]
    request = {"progress": str(progress), "files": files}
    try:
        reply = run("jobs.lower", request, folder, timeout)
    except ChildError as error:
        raise_if_full(str(error))
        index = int(progress.read_text("utf-8")) if progress.exists() else 0
        raise explain_crash(model, chosen[index], error) from error
    if "refused" in reply:
        raise ConversionError(
            f"Model '{model.name}' cannot be converted to {chosen[reply['index']].name}: "
            f"{reply['refused']}."
        )
    if "error" in reply:
        raise_if_full(reply["error"])
        raise explain_error(model, prepared.call.inputs, chosen[reply["index"]], reply["error"])
    found = [
        Inspection.from_description(Path(str(file["path"])), read["file"])
        for file, read in zip(files, reply["files"], strict=True)
    ]
    for precision, file in zip(chosen, found, strict=True):
        if file.load_error:
            how = how_to_fix_sizes(prepared.call.inputs)
            raise ConversionError(
                f"Model '{model.name}' was converted to {precision.name}, but the runtime does not "
                f"load the result: {file.load_error} {how}".strip()
            )
    return [
        Lowered(file, _layers(model, read["kept_float"]), read["kept_weights"], given)
        for file, read, given in zip(found, reply["files"], samples, strict=True)
    ]


def _layers(model: keras.Model, names: list[str]) -> tuple[str, ...]:
    """Return the layers of ops; the name of an op that leads to none."""
    return tuple(dict.fromkeys(layer_at(model, name) or name for name in names))


def _save_samples(prepared: Prepared, folder: Path) -> list[dict[str, Any] | None]:
    """Write the samples of each file for the child process, in whole batches, each array once."""
    batch = prepared.call.inputs[0].shape[0] or 1
    saved: dict[int, dict[str, Any]] = {}
    for arrays in prepared.samples:
        if arrays is not None and id(arrays) not in saved:
            file = folder / f"samples_{len(saved)}.npz"
            np.savez(file, *whole_batches(arrays, batch).values())
            saved[id(arrays)] = {"path": str(file), "names": list(arrays), "batch_size": batch}
    return [None if arrays is None else saved[id(arrays)] for arrays in prepared.samples]
