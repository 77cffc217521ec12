"""The demo: train, prune, convert, verify, measure and report on real data.

The data are the 1,797 handwritten digits that scikit-learn ships, so nothing is downloaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from tfcompress.edge.reports.report import check_report_path
from tfcompress.edge.system.console import captured
from tfcompress.pruning.keep_zeros import KeepZeros
from tfcompress.pruning.prune import Prune
from tfcompress.regularizers.regularize import regularize

from . import converters, edge
from .pruning import schedules

SPARSITY = 0.8
TEST_SHARE = 0.3
BATCH = 32
EPOCHS = {"train": 12, "prune": 12, "fine-tune": 4}
# The file and Keras must agree on at least this share of the digits.
AGREEMENT = 0.98


class Digits(NamedTuple):
    """Images `(n, 8, 8, 1)`, float32 in [0, 1], and their labels `(n,)`, for training and test."""

    x_train: NDArray[np.float32]
    y_train: NDArray[np.int64]
    x_test: NDArray[np.float32]
    y_test: NDArray[np.int64]


def load_digits(seed: int = 0) -> Digits:
    """Return the handwritten digits of scikit-learn, split by class into training and test data.

    >>> data = load_digits()
    >>> data.x_train.shape, data.x_test.shape
    ((1257, 8, 8, 1), (540, 8, 8, 1))

    Args:
        seed: Seed of the split. Defaults to 0.

    Returns:
        The training and test split.

    Raises:
        ImportError: scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits as load
        from sklearn.model_selection import train_test_split
    except ModuleNotFoundError as error:
        raise ImportError(
            "The demo trains on scikit-learn's handwritten digits, and scikit-learn is not "
            "installed. Install it with: pip install 'tfcompress[demo]'"
        ) from error
    images, labels = load(return_X_y=True)
    images = (images / 16).astype("float32").reshape(-1, 8, 8, 1)
    x_train, x_test, y_train, y_test = train_test_split(
        images, labels, test_size=TEST_SHARE, stratify=labels, random_state=seed
    )
    return Digits(x_train, y_train, x_test, y_test)


def small_cnn() -> keras.Model:
    """Return a convolutional net for 8x8 digits that is large enough to measure size and speed."""
    return keras.Sequential(
        [
            keras.Input((8, 8, 1), name="image"),
            keras.layers.Conv2D(32, 3, padding="same", use_bias=False),
            keras.layers.BatchNormalization(),
            keras.layers.ReLU(),
            keras.layers.Conv2D(64, 3, padding="same", use_bias=False),
            keras.layers.BatchNormalization(),
            keras.layers.ReLU(),
            keras.layers.MaxPooling2D(),
            keras.layers.Flatten(),
            keras.layers.Dense(128, activation="relu"),
            keras.layers.Dense(10, name="digit"),
        ],
        name="digits",
    )


def demo(
    out: str | Path = "tfcompress-demo", *, seed: int = 0, console: Console | None = None
) -> edge.Report:
    """Train, prune, convert, verify and measure a small CNN, and write a report.

    A trained model is trained further in two ways, dense and pruned, and both are written in four
    precisions. The accuracy of every file is measured on the file itself, over the whole test
    split. The demo takes a minute or two on two cores.

    >>> report = demo("my-demo")  # doctest: +SKIP
    >>> print(report)  # doctest: +SKIP

    Args:
        out: Folder for the eight .tflite files and `report.html`, `.json` and `.md`; made if it
            does not exist. Defaults to "tfcompress-demo".
        seed: Seed of the split, the weights and the order of the batches. Defaults to 0.
        console: Console that shows progress. Defaults to standard output.

    Returns:
        The report: one row for each file, the dense float32 file first; then the same files on the
        GPU, if there is one.

    Raises:
        ImportError: scikit-learn or matplotlib is not installed.
        OSError: The folder cannot be made or written.
        VerificationError: A file does not compute what the model does.
    """
    data = load_digits(seed)
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    check_report_path(folder / "report.html")
    with _progress(console) as progress:
        with captured():  # TensorFlow logs its search for a GPU at the first tensor
            keras.utils.set_random_seed(seed)
            dense = small_cnn()
        train(dense, data, progress)
        pruned = keras.models.clone_model(dense)
        pruned.set_weights(dense.get_weights())
        train_further(dense, data, progress)
        train_further_pruned(pruned, data, progress)
        models = {"dense": dense, "pruned": pruned}
        files = write_files(models, folder, data, progress)
        results = [
            result
            for delegate in ("xnnpack", "gpu")
            if delegate == "xnnpack" or edge.delegates()[delegate].available
            for result in measure_files(files, models, data, delegate, progress)
        ]
    report = edge.Report(results, title="tfcompress demo: handwritten digits")
    for name in ("report.html", "report.json", "report.md"):
        report.save(folder / name)
    return report


def train(model: keras.Model, data: Digits, progress: Progress) -> None:
    """Train the dense model."""
    _fit(model, data, "Train", EPOCHS["train"], 2e-3, [], progress)


def train_further(model: keras.Model, data: Digits, progress: Progress) -> None:
    """Train further without pruning, with equal epochs and rates, for a fair comparison."""
    _fit(model, data, "Train further, dense", EPOCHS["prune"], 1e-3, [], progress)
    _fit(model, data, "Fine-tune", EPOCHS["fine-tune"], 2e-4, [], progress)


def train_further_pruned(model: keras.Model, data: Digits, progress: Progress) -> None:
    """Prune to 80% zeros with L1 and a polynomial schedule, then fine-tune without L1."""
    steps = EPOCHS["prune"] * -(-len(data.x_train) // BATCH)
    schedule = schedules.Polynomial(0.0, SPARSITY, begin=0, end=steps * 3 // 4, frequency=10)
    regularize(model, keras.regularizers.L1(1e-5))
    _fit(model, data, "Train further, pruned", EPOCHS["prune"], 1e-3, [Prune(schedule)], progress)
    regularize(model, None)
    _fit(model, data, "Fine-tune", EPOCHS["fine-tune"], 2e-4, [KeepZeros()], progress)


def write_files(
    models: Mapping[str, keras.Model], folder: Path, data: Digits, progress: Progress
) -> dict[str, Path]:
    """Write every model in every precision, and return the files by label."""
    precisions: dict[str, converters.Precision] = {
        "float32": converters.Float32(),
        "float16": converters.Float16(),
        "dynamic": converters.DynamicInt8(),
        "int8": converters.Int8(calibration=data.x_train[:200]),
    }
    files: dict[str, Path] = {}
    task = progress.add_task("Convert", total=len(models))
    for name, model in models.items():
        paths = {label: folder / f"{name}_{label}.tflite" for label in precisions}
        converters.convert_all(
            model,
            {paths[label]: precision for label, precision in precisions.items()},
            batch_size=1,
            strict=True,
            runtime="2.17",
        )
        files |= {f"{name} {label}": path for label, path in paths.items()}
        progress.advance(task)
    return files


def measure_files(
    files: Mapping[str, Path],
    models: Mapping[str, keras.Model],
    data: Digits,
    delegate: str,
    progress: Progress,
) -> list[edge.BenchmarkResult]:
    """Measure size, latency, zeros, accuracy and parity of every file on one delegate."""
    suffix = "" if delegate == "xnnpack" else f" on {delegate}"
    task = progress.add_task(f"Measure{suffix}", total=None)
    measured = edge.benchmark(
        list(files.values()),
        delegate,
        names=[label + suffix for label in files],
        progress=lambda done, total: progress.update(task, completed=done, total=total),
    )
    results = []
    for (label, path), result in progress.track(
        list(zip(files.items(), measured, strict=True)), description=f"Verify{suffix}"
    ):
        if result.ok:
            model = models[label.split()[0]]
            result = result.with_metrics(**_check(model, path, data, delegate))
        results.append(result)
    return results


def _check(model: keras.Model, path: Path, data: Digits, delegate: str) -> dict[str, float | str]:
    """Return zeros, accuracy and parity of a file over the test split; raise if it is wrong."""
    found = converters.verify(model, path, data.x_test, delegate).raise_if_above(
        top1_below=AGREEMENT
    )
    with edge.Runner(path, delegate, isolated=True) as runner:
        digits = runner(data.x_test).argmax(-1)
    output = found.outputs[0]
    steps = output.max_lsb
    return {
        "zeros": converters.inspect(path).zeros,
        "accuracy": float(np.mean(digits == data.y_test)),
        "parity": f"{output.max_error:.1e}" if steps is None else f"{steps:.1f} LSB",
    }


def _fit(
    model: keras.Model,
    data: Digits,
    stage: str,
    epochs: int,
    learning_rate: float,
    callbacks: list[keras.callbacks.Callback],
    progress: Progress,
) -> None:
    task = progress.add_task(stage, total=epochs)
    advance = keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: progress.advance(task))
    model.compile(
        keras.optimizers.Adam(learning_rate),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=False,  # XLA takes longer to compile than this net to train
    )
    model.fit(
        data.x_train,
        data.y_train,
        batch_size=BATCH,
        epochs=epochs,
        verbose=0,
        callbacks=[*callbacks, advance],
    )


def _progress(console: Console | None) -> Progress:
    return Progress(
        TextColumn("{task.description:<22}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
    )
