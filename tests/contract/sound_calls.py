"""A sound call of every public function, whose arguments `test_arguments.py` spoils one by one."""

import dataclasses
import functools
import inspect
import io
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import keras
import numpy as np
from keras import layers

import tfcompress as tfc
from tests.golden.test_golden import HERE as GOLDEN
from tests.zoo.keras_hub import family
from tests.zoo.language_models import by_hand
from tfcompress import converters, edge, schedules
from tfcompress.edge.system.tflite import PROBE
from tfcompress.planner.baseline import Baseline
from tfcompress.planner.data import Examples
from tfcompress.planner.measure import Device
from tfcompress.planner.metrics import METRICS
from tfcompress.planner.result import Best
from tfcompress.planner.target import Figures
from tfcompress.planner.workbench import Workbench

# Results, which functions of ours make, and bases that define no argument.
MADE_BY_US = {
    *("ChannelGroup", "ChannelGroups", "Clustering", "Compression", "EqualizationPlan"),
    "LowRankPlan",
    *("PrunedVocabulary", "QatReport", "Summary"),
    *("converters.Converted", "converters.GraphOp", "converters.Inspection"),
    *("converters.Inspection.from_description", "converters.OutputError"),
    *("converters.RuleViolation", "converters.SparseCheck", "converters.SparseWeight"),
    *("converters.Cut", "converters.Sparsified", "converters.Split", "converters.Verification"),
    "edge.Availability",
    *(
        "edge.OpTime",
        "edge.Profile",
        "edge.BenchmarkResult",
        "edge.Estimate",
        "edge.Measurement",
        "edge.Settings",
        "edge.Placement",
        "edge.Session",
        "edge.TensorInfo",
    ),
    *("edge.TensorInfo.from_details", "edge.TensorInfo.from_dict", "edge.Child"),
}
# Called by ours, with checked arguments: a protocol to implement, a function to choose by name.
CALLED_BY_US = {
    *(
        "edge.Target",
        "edge.Target.session",
        "edge.Local.session",
        "edge.Ssh.session",
        "edge.Process.wait",
    ),
    *("edge.Estimator", "edge.Estimator.estimate", "edge.EthosU.estimate"),
    *("edge.Measurer", "edge.Measurer.measure", "edge.Adb.measure"),
    "edge.Browser.measure",
    *("converters.DynamicInt8.for_runtime", "converters.Precision.for_runtime"),
    *("importance.bn_scale", "importance.l1_norm", "importance.l2_norm"),
    *("schedules.Schedule", "schedules.Schedule.from_config"),
    *("converters.LanguageModel", "converters.LanguageModel.cache_shapes"),
    "converters.LanguageModel.step",
}
# Keras calls these methods.
KERAS = (
    *(keras.layers.Layer, keras.callbacks.Callback, keras.regularizers.Regularizer),
    keras.distillation.DistillationLoss,
)


def public(module: ModuleType = tfc, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every public function, class and method that takes arguments, with its name."""
    for name in module.__all__:
        item, path = getattr(module, name), f"{prefix}{name}"
        if isinstance(item, ModuleType):
            yield from public(item, f"{path}.")
        elif isinstance(item, type):
            if not issubclass(item, Exception):
                yield from ((p, o) for p, o in _class(item, path) if p not in MADE_BY_US)
        elif inspect.isroutine(item) and _parameters(item):
            yield path, item


def _class(item: type, path: str) -> Iterator[tuple[str, Any]]:
    if inspect.isabstract(item) or _parameters(item):
        yield path, item
    if issubclass(item, KERAS):
        return
    for name, method in vars(item).items():
        function = getattr(item, name)
        if (
            (not name.startswith("_") or name == "__call__")
            and inspect.isroutine(function)
            and callable(function)
        ):
            own = _parameters(function)
            taken = 0 if isinstance(method, classmethod | staticmethod) else 1
            if len(own) > taken:
                yield f"{path}.{name}", function


def _parameters(function: Any) -> list[inspect.Parameter]:
    return list(inspect.signature(function).parameters.values())


@dataclasses.dataclass
class Call:
    """A sound call.

    Attributes:
        function: Function to call.
        arguments: Its arguments by name.
        legal: Names of bad values that are good ones here, by argument.
        words: What an error may call an argument instead.
        only: The arguments to spoil; None for all.
        work: Whether it takes long, so that only a slow test calls it as it is.
    """

    function: Callable[..., Any]
    arguments: dict[str, Any]
    legal: dict[str, str] = dataclasses.field(default_factory=dict)
    words: dict[str, str] = dataclasses.field(default_factory=dict)
    only: tuple[str, ...] | None = None
    work: bool = False

    def __call__(self, **spoiled: Any) -> Any:
        signature = inspect.signature(self.function)
        given = {**self.arguments, **spoiled}
        bound = inspect.BoundArguments(
            signature,
            {name: given[name] for name in signature.parameters if name in given},  # type: ignore[arg-type]
        )
        return self.function(*bound.args, **bound.kwargs)

    def parameters(self) -> list[inspect.Parameter]:
        """Return the arguments to spoil."""
        kinds = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
        return [
            parameter
            for parameter in inspect.signature(self.function).parameters.values()
            if parameter.kind not in kinds and (self.only is None or parameter.name in self.only)
        ]


def model() -> keras.Model:
    net = keras.Sequential(
        [keras.Input((8,), name="x"), layers.Dense(16, name="a"), layers.Dense(4, name="b")],
        name="net",
    )
    net.compile("sgd", "mse", jit_compile=False)
    return net


LM = GOLDEN / "language_model.tflite"
X, Y = np.ones((8, 8), np.float32), np.ones((8, 4), np.float32)


@dataclasses.dataclass(frozen=True)
class Tenths(converters.Precision):
    name: ClassVar[str] = "tenths"


def nothing(*arguments: Any) -> None:
    """Take anything, and do nothing."""


NUMBERS = "True, zero, negative, fraction, minus, NaN, infinite, huge"
FUNCTIONS = "function without arguments, function of six"


class Answering:
    """A peer that answers one request."""

    def __init__(self) -> None:
        self.requests, self.answers = io.BytesIO(), io.BytesIO(b'{"ok": true, "result": {}}\n')

    def wait(self, timeout: float) -> int | None:
        return 0

    def kill(self) -> None: ...

    def log(self) -> str:
        return ""

    def close(self) -> None: ...


TARGET = tfc.Target(accuracy_drop=0.5)


def compressed() -> Any:
    figures = Figures(PROBE.stat().st_size, 0.5, 1.0, 1.0)
    best = Best(PROBE, "nothing", figures, 0.0)
    bench = Workbench(
        model(), {"x": X}, Examples({"x": X}, Y), METRICS["mean_squared_error"],
        Device(edge.Local()), TARGET, Baseline(PROBE, figures, None), PROBE.parent, training=None,
    )  # type: ignore[arg-type]  # fmt: skip
    options: Any = {"bench": bench, "_again": lambda minutes: compressed()}
    return tfc.Compression(TARGET, figures, best, (), 0.0, "", **options)


@functools.cache
def hub() -> dict[str, Any]:
    """Return a model of KerasHub, and one that calls it with a fixed length."""
    bert, _ = family("BERT")
    [backbone] = [layer for layer in bert.layers if isinstance(layer, keras.Model)]
    return {"model": bert, "like": backbone}


def table(folder: Path) -> dict[str, list[Call]]:
    """Return the sound calls by the name of the public function."""
    net, other = model(), model()
    noise = np.random.default_rng(0).normal(size=(32, 8)).astype(np.float32)
    known = (noise, np.asarray(net(noise)))
    words = keras.Sequential([keras.Input((4,), dtype="int32", name="ids"), layers.Embedding(9, 2)])
    qat = tfc.calibrate(tfc.quantize_aware(net), X)
    summary = tfc.summary(net)
    runner, generator = edge.Runner(PROBE), edge.Generator(LM)
    heads = np.ones((1, 3, 2, 4), np.float32)
    rows = np.ones((2, 4), np.float32)
    result = edge.BenchmarkResult("name", "path", "xnnpack")
    report = edge.Report(result)
    report.save(folder / "report.json")
    schedule = schedules.Constant(0.5)
    verification = converters.Verification(folder / "m.tflite", "xnnpack", 1, ())
    scores = np.arange(8.0).reshape(4, 2)
    latent = {"teacher_layer_name": "a", "student_layer_name": "a"}
    file, out = folder / "m.tflite", folder / "new.tflite"
    shutil.copy(PROBE, file)
    tokenizer = folder / "tokenizer.json"
    tokenizer.write_text('{"model": {}}', "utf-8")
    child = {"command": [sys.executable, "-c", "pass"]}

    def gradually(scope: Any, round_to: Any, max_pruning_ratio: Any, attention: Any) -> Any:
        options = {"scope": scope, "round_to": round_to, "max_pruning_ratio": max_pruning_ratio}
        return tfc.prune_channels_gradually(net, 0.5, nothing, attention=attention, **options)

    return {
        "Comparison": [Call(tfc.Comparison, {"before": summary, "after": summary})],
        "Comparison.grouped": [Call(tfc.Comparison(summary, summary).grouped, {})],
        "Comparison.table": [Call(tfc.Comparison(summary, summary).table, {})],
        "Summary.grouped": [Call(summary.grouped, {})],
        "Summary.table": [Call(summary.table, {})],
        "Distiller": [
            Call(
                tfc.Distiller,
                {"teacher": net, "student": other},
                {
                    "name": "text",
                    "distillation_loss_weights": "zero, fraction, huge, list",
                    "student_loss_weight": "zero",
                },
            )
        ],
        "FakeQuant": [Call(tfc.FakeQuant, {}, {"momentum": "zero"})],
        "FreezeBatchNorm": [
            Call(tfc.FreezeBatchNorm, {"epoch": 1}, {"epoch": "zero"}, only=("epoch",)),
            Call(tfc.FreezeBatchNorm, {"step": 1}, {"step": "zero"}, only=("step",)),
        ],
        "FreezeRanges": [
            Call(tfc.FreezeRanges, {"epoch": 1}, {"epoch": "zero"}, only=("epoch",)),
            Call(tfc.FreezeRanges, {"step": 1}, {"step": "zero"}, only=("step",)),
        ],
        "GroupLasso": [
            Call(tfc.GroupLasso, {}, {"strength": "zero, huge", "axis": "zero, negative"})
        ],
        "QuantizationScheme": [Call(tfc.QuantizationScheme, {}, {"momentum": "zero"})],
        "KeepClusters": [Call(tfc.KeepClusters, {}, {"filters": "text"})],
        "KeepZeros": [Call(tfc.KeepZeros, {}, {"filters": "text"})],
        "Prune": [
            Call(
                tfc.Prune,
                {"schedule": schedule},
                {"filters": "text", "then": "empty list"},
            )
        ],
        "QuantizeWrapper": [
            Call(
                tfc.QuantizeWrapper,
                {"layer": layers.Dense(2)},
                {"then": "empty list", "momentum": "zero"},
            )
        ],
        "SmoothL0": [Call(tfc.SmoothL0, {}, {"l0": "zero, huge", "epsilon": "huge"})],
        "as_keras_hub": [Call(tfc.as_keras_hub, hub(), work=True)],
        "calibrate": [
            Call(tfc.calibrate, {"model": qat, "data": X}, words={"data": "samples"}, work=True)
        ],
        "channel_groups": [Call(tfc.channel_groups, {"model": net}, {"model": "empty model"})],
        "cluster_weights": [Call(tfc.cluster_weights, {"model": model()})],
        "factorize": [
            Call(
                tfc.factorize, {"model": net, "amount": 0.5}, {"refine": "zero", "amount": "zero"}
            ),
            Call(tfc.factorize, {"model": net, "energy": 0.5}, only=("energy",)),
        ],
        "equalization_plan": [
            Call(tfc.equalization_plan, {"model": net, "samples": X}, {"alpha": "zero"})
        ],
        "equalize": [Call(tfc.equalize, {"model": net, "samples": X}, {"alpha": "zero"})],
        "Compression.report": [
            Call(compressed().report, {"path": folder / "planned.html"}, work=True)
        ],
        "Compression.resume": [Call(compressed().resume, {"minutes": 1.0}, work=True)],
        "Compression.save": [Call(compressed().save, {"path": out}, work=True)],
        "Target": [
            Call(
                tfc.Target,
                {"bytes": 9, "accuracy_drop": 0.1, "minimize": "bytes"},
                {"accuracy_drop": "zero, huge"},
            )
        ],
        "compress": [
            Call(
                tfc.compress,
                {"model": net, "train": known, "validation": known, "target": TARGET, "trials": 1}
                | {"metric": "mean_squared_error", "storage": folder / "planned"},
                {"storage": "text", "trials": "None", "seed": "zero"},
                {"device": "target"},
                work=True,
            )
        ],
        "composite_layers": [Call(tfc.composite_layers, {"model": net}, {"model": "empty model"})],
        "low_rank_plan": [
            Call(
                tfc.low_rank_plan,
                {"model": net, "amount": 0.5},
                {"refine": "zero", "amount": "zero"},
            ),
            Call(tfc.low_rank_plan, {"model": net, "energy": 0.5}, only=("energy",)),
        ],
        "open_layers": [Call(tfc.open_layers, {"model": net}, {"model": "empty model"})],
        "prune_channels": [
            Call(tfc.prune_channels, {"model": net, "amount": 0.5}, {"amount": "zero"})
        ],
        "prune_channels_gradually": [
            Call(
                tfc.prune_channels_gradually,
                {"model": net, "amount": 0.5, "fine_tune": nothing},
                {"amount": "zero"},
            ),
            Call(
                gradually,
                {"scope": "layer", "round_to": 1, "max_pruning_ratio": 0.9, "attention": "heads"},
                {"max_pruning_ratio": "fraction"},
            ),
        ],
        "prune_vocabulary": [
            Call(
                tfc.prune_vocabulary,
                {"model": words, "tokens": [1, 2]},
                {
                    "tokens": "zero, list",
                    "keep": "zero, list, empty list, empty array",
                    "unknown": "zero",
                },
            )
        ],
        "PrunedVocabulary.translate": [
            Call(
                tfc.prune_vocabulary(words, [0, 1]).translate,
                {"tokens": [1]},
                {"tokens": "zero, list, empty list, empty array"},
            )
        ],
        "prune_weights": [
            Call(tfc.prune_weights, {"model": model(), "sparsity": 0.5}, {"sparsity": "zero"}),
            Call(
                tfc.prune_weights,
                {"model": model(), "threshold": 0.5},
                {"threshold": "zero, huge"},
                only=("threshold",),
            ),
        ],
        "qat_report": [Call(tfc.qat_report, {"model": qat})],
        "quantize_aware": [Call(tfc.quantize_aware, {"model": net})],
        "regularize": [Call(tfc.regularize, {"model": other, "regularizer": "l1"})],
        "self_distiller": [
            Call(
                tfc.self_distiller,
                {"model": net},
                {
                    "distillation_loss_weights": "zero, fraction, huge, list",
                    "student_loss_weight": "zero",
                },
            )
        ],
        "separable_net": [
            Call(tfc.separable_net, {"input_shape": (32, 32, 3), "classes": 2}, {"name": "text"})
        ],
        "strip": [Call(tfc.strip, {"model": qat})],
        "summary": [Call(tfc.summary, {"model": net}, {"model": "empty model"})],
        "budgets.Latency": [
            Call(tfc.budgets.Latency, {"most": 0.5}, only=("most", "delegate", "threads")),
            Call(
                tfc.budgets.Latency,
                {"milliseconds": 0.5},
                {"milliseconds": "huge"},
                only=("milliseconds",),
            ),
        ],
        "budgets.Macs": [Call(tfc.budgets.Macs, {"most": 0.5})],
        "budgets.Parameters": [Call(tfc.budgets.Parameters, {"most": 0.5})],
        "budgets.allowed": [
            Call(
                tfc.budgets.allowed,
                {"budget": tfc.budgets.Macs(0.5), "total": 9},
                {"total": "zero"},
            )
        ],
        "budgets.check_amount": [
            Call(
                tfc.budgets.check_amount,
                {"amount": 0.5, "share_of": "units"},
                {"amount": "zero, fraction", "share_of": "text"},
            )
        ],
        **{
            f"budgets.{name}": [
                Call(
                    getattr(tfc.budgets, name),
                    {"budget": tfc.budgets.Macs(0.5), "model": net},
                    {"model": "empty model"},
                )
            ]
            for name in ("cost", "limit")
        },
        "budgets.unit": [Call(tfc.budgets.unit, {"budget": tfc.budgets.Macs(0.5)})],
        **{
            f"distill.{name}": [
                Call(
                    getattr(tfc.distill, name),
                    latent,
                    dict.fromkeys(latent if name == "AttentionMaps" else (*latent, "mask"), "text"),
                )
            ]
            for name in ("AttentionMaps", "AttentionScores", "Features")
        },
        "distill.SoftTargets": [
            Call(
                tfc.distill.SoftTargets,
                {},
                {"temperature": "huge", **dict.fromkeys((*latent, "mask"), "text")},
            )
        ],
        **{
            f"importance.{name}": [Call(getattr(tfc.importance, name), {"x": X})]
            for name in ("activation_mean", "activation_zeros")
        },
        "importance.get": [
            Call(tfc.importance.get, {"importance": "l2_norm"}, only=("importance",)),
            Call(
                tfc.importance.get,
                {"importance": "taylor", "data": (X, Y), "loss": "mse"},
                only=("data", "loss"),
            ),
        ],
        "importance.random": [Call(tfc.importance.random, {}, {"seed": "zero"})],
        "importance.register": [Call(tfc.importance.register, {"name": "mine"}, {"name": "text"})],
        "importance.taylor": [Call(tfc.importance.taylor, {"x": X, "y": Y})],
        "masks.Block": [Call(tfc.masks.Block, {"rows": 4, "columns": 2})],
        "masks.NofM": [Call(tfc.masks.NofM, {"n": 2, "m": 4})],
        "masks.blocks": [
            Call(
                tfc.masks.blocks,
                {"scores": scores, "sparsity": 0.5, "rows": 2, "columns": 2},
                {"sparsity": "zero"},
            )
        ],
        "masks.compute": [
            Call(
                tfc.masks.compute,
                {
                    "scores": [scores],
                    "sparsity": 0.5,
                    "structure": tfc.masks.NofM(2, 4),
                    "axes": [((1,), (0,))],
                },
                {"sparsity": "zero"},
            ),
        ],
        "masks.global_budget": [
            Call(tfc.masks.global_budget, {"scores": [scores], "nonzeros": 3}, {"nonzeros": "zero"})
        ],
        "masks.n_of_m": [Call(tfc.masks.n_of_m, {"scores": scores, "n": 2, "m": 4})],
        "masks.per_layer": [
            Call(
                tfc.masks.per_layer,
                {"scores": scores, "sparsity": 0.5},
                {"scores": "list", "sparsity": "zero"},
            )
        ],
        "masks.threshold": [
            Call(
                tfc.masks.threshold,
                {"scores": scores, "limit": 0.5},
                {"scores": "list", "limit": "zero, negative, minus, huge"},
            )
        ],
        "schedules.Constant": [
            Call(
                schedules.Constant,
                {"sparsity": 0.5},
                {"sparsity": "zero", "begin": "zero", "end": "zero"},
            )
        ],
        "schedules.OneShot": [
            Call(schedules.OneShot, {"sparsity": 0.5}, {"sparsity": "zero", "step": "zero"})
        ],
        **{
            f"schedules.{name}": [
                Call(
                    getattr(schedules, name),
                    {"initial": 0.0, "final": 0.5, "begin": 0, "end": 9},
                    {
                        "initial": "zero",
                        "final": "zero",
                        "begin": "zero",
                        "end": "zero",
                        "power": "huge",
                    },
                )
            ]
            for name in ("Polynomial", "Exponential")
        },
        **{
            f"schedules.Schedule.{name}": [
                Call(getattr(schedule, name), {"step": 3}, {"step": "zero"})
            ]
            for name in ("__call__", "last_update", "next_update")
        },
        "schedules.Schedule.in_steps": [
            Call(
                schedules.Polynomial(0.0, 0.5, 0.0, 0.5).in_steps,
                {"first": 0, "steps": 9},
                {"first": "zero, huge", "steps": "huge"},
            )
        ],
        "converters.ConverterOptions": [
            Call(
                converters.ConverterOptions,
                {},
                {
                    **dict.fromkeys(
                        ("optimizations", "supported_ops", "supported_types"), "empty list"
                    ),
                    **dict.fromkeys(("input_type", "output_type"), "text"),
                },
            )
        ],
        "converters.DynamicInt8": [Call(converters.DynamicInt8, {})],
        "converters.Int8": [
            Call(
                converters.Int8,
                {"calibration": X},
                {"calibration": "list, list of None, dict, empty array, " + FUNCTIONS},
            )
        ],
        "converters.Int16x8": [
            Call(
                converters.Int16x8,
                {"calibration": X},
                {"calibration": "list, list of None, dict, empty array, " + FUNCTIONS},
            )
        ],
        "converters.Int4Weights": [
            Call(
                converters.Int4Weights,
                {"calibration": X, "keep": None},
                {
                    "calibration": "list, list of None, dict, empty array, " + FUNCTIONS,
                    "keep": "text, None, " + FUNCTIONS,
                },
            )
        ],
        "converters.Pass": [
            Call(converters.Pass, {"module": "sparsify"}, {"module": "text", "options": "dict"})
        ],
        "converters.Sparse": [
            Call(converters.Sparse, {}, {"int8_weights": "True", "skip_zeros": "True"})
        ],
        "converters.Verification.raise_if_above": [
            Call(
                verification.raise_if_above,
                {"lsb": 1},
                {
                    **dict.fromkeys(("lsb", "mean_lsb", "max_error", "mean_error"), "zero, huge"),
                    "snr_below": "zero, negative, minus, huge",
                    "cosine_below": "zero, negative, minus",
                    "top1_below": "zero",
                    "r2_below": "zero, negative, minus",
                },
            )
        ],
        "converters.WeightOnly": [
            Call(
                converters.WeightOnly,
                {"activations": "float32", "calibration": X},
                {"calibration": "list, list of None, dict, empty array, " + FUNCTIONS},
            )
        ],
        "converters.check_sparse_kernels": [
            Call(converters.check_sparse_kernels, {"file": file}, work=True)
        ],
        "converters.convert": [Call(converters.convert, {"model": net, "path": file}, work=True)],
        "converters.convert_all": [
            Call(
                converters.convert_all,
                {"model": net, "files": {file: converters.Float32()}},
                words={"files": "path"},
                work=True,
            )
        ],
        "converters.bundle": [
            Call(
                converters.bundle,
                {
                    "file": LM,
                    "tokenizer": tokenizer,
                    "path": folder / "lm.litertlm",
                    "stop": [0],
                    "start": 1,
                },
                {"start": "zero", "stop": "list"},
                only=("file", "tokenizer", "path", "stop", "start"),
                work=True,
            )
        ],
        "converters.cached_attention": [
            Call(
                converters.cached_attention,
                {
                    **dict.fromkeys(("query", "key", "value"), heads),
                    "cache": (np.ones((1, 2, 9, 4), np.float32),) * 2,
                    "positions": np.arange(3),
                },
                {"scale": "zero, negative, minus, huge", "soft_cap": "huge"},
            )
        ],
        "converters.convert_generator": [
            Call(
                converters.convert_generator,
                {
                    "model": by_hand(),
                    "path": folder / "lm.tflite",
                    "max_tokens": 16,
                    "prefill": [4],
                },
                work=True,
            )
        ],
        "converters.verify_generator": [
            Call(
                converters.verify_generator,
                {"model": by_hand(), "path": LM, "tokens": np.ones((1, 4), np.int32)},
                work=True,
            )
        ],
        "converters.inspect": [Call(converters.inspect, {"path": file}, work=True)],
        "converters.quantize": [
            Call(
                converters.quantize,
                {
                    "path": PROBE,
                    "out": file.with_name("q.tflite"),
                    "precision": converters.Int8(rows),
                },
                work=True,
            )
        ],
        "converters.register_precision": [
            Call(converters.register_precision, {"precision": Tenths})
        ],
        "converters.sparsify": [
            Call(converters.sparsify, {"path": file, "out": out}, {"out": "text"}, work=True)
        ],
        "converters.compare": [
            Call(
                converters.compare,
                {"path": PROBE, "other": PROBE, "samples": np.ones((2, 4), np.float32)},
                only=("path", "other", "delegate", "threads"),
                work=True,
            )
        ],
        "converters.to_c_array": [
            Call(
                converters.to_c_array,
                {"path": PROBE, "out": folder / "model.cc"},
                {"out": "text"},
            )
        ],
        "converters.split": [
            Call(
                converters.split,
                {"path": file, "first": file.with_name("1.tflite"), "second": out, "at": 1},
                {"link": "huge", "timeout": "None", "threads": "None"},
                work=True,
            )
        ],
        "converters.verify": [
            Call(converters.verify, {"model": net, "path": file, "samples": X}, work=True)
        ],
        "edge.BenchmarkResult.from_dict": [
            Call(edge.BenchmarkResult.from_dict, {"data": result.to_dict()})
        ],
        "edge.Generator": [Call(edge.Generator, {"path": LM})],
        "edge.Generator.generate": [
            Call(
                generator.generate,
                {"tokens": [1, 2], "new_tokens": 3},
                {
                    "tokens": "list",
                    "temperature": "zero, True, huge",
                    "stop": "empty list, list",
                    "seed": "zero, huge",
                },
            )
        ],
        "edge.Generator.logits": [Call(generator.logits, {"tokens": [1, 2]}, {"tokens": "list"})],
        "edge.perplexity": [Call(edge.perplexity, {"path": LM, "tokens": [1, 2]})],
        "edge.Adb": [
            Call(
                edge.Adb,
                {},
                {
                    "serial": "text",
                    "benchmark_model": "text",
                    "name": "text, empty text",
                    "options": "empty list",
                },
            )
        ],
        "edge.Browser": [
            Call(
                edge.Browser,
                {},
                {
                    "package": "text",
                    "program": "text, empty text",
                    "name": "text",
                    "options": "empty list",
                },
            )
        ],
        "edge.Ssh": [
            Call(
                edge.Ssh,
                {"host": "pi"},
                {
                    "host": "text",
                    "python": "text",
                    "name": "text, empty text",
                    "options": "empty list",
                },
            )
        ],
        "edge.evaluate": [
            Call(
                edge.evaluate,
                {"path": PROBE, "x": rows, "y": [0] * len(rows)},
                {"metric": "function of six", "output": "text"},
                only=("path", "metric", "delegate", "threads", "output", "target"),
                work=True,
            )
        ],
        "edge.profile": [Call(edge.profile, {"path": PROBE}, {"warmup": "zero"}, work=True)],
        "edge.EthosU": [Call(edge.EthosU, {}, {"name": "text, empty text"})],
        "edge.Microcontroller": [Call(edge.Microcontroller, {}, {"name": "text"})],
        "edge.Microcontroller.estimate": [
            Call(edge.Microcontroller().estimate, {"path": PROBE}, work=True)
        ],
        "edge.Local": [Call(edge.Local, {}, {"name": "text"})],
        "edge.Process": [Call(edge.Process, child, {"command": ""}, work=True)],
        "edge.Report": [
            Call(
                edge.Report,
                {"results": [result]},
                {"title": "text", "results": "empty list, empty array"},
            )
        ],
        "edge.Report.from_dict": [Call(edge.Report.from_dict, {"data": report.to_dict()})],
        "edge.Report.load": [Call(edge.Report.load, {"path": folder / "report.json"})],
        "edge.Report.save": [Call(report.save, {"path": folder / "other.json"})],
        "edge.Runner": [Call(edge.Runner, {"path": PROBE}, {"tolerance": "zero, huge"})],
        **{
            f"edge.Runner.{name}": [Call(getattr(runner, name), {"inputs": rows})]
            for name in ("__call__", "named", "encode")
        },
        "edge.Runner.split": [Call(runner.split, {"arrays": {"x": rows}})],
        "edge.benchmark": [
            Call(
                edge.benchmark,
                {"paths": PROBE, "rounds": 1, "min_runs": 1, "min_seconds": 0.0},
                {
                    "min_seconds": "zero",
                    "warmup": "zero",
                    "seed": "zero",
                    "names": "text",
                    "paths": "text",
                    "signature": "text",
                    # A result says that inputs do not fit its file.
                    "inputs": "empty list, list, dict, empty array, " + NUMBERS,
                },
                work=True,
            )
        ],
        "edge.delegates": [Call(edge.delegates, {}, work=True)],
        "edge.placement": [Call(edge.placement, {"path": PROBE}, work=True)],
        "edge.register_target": [Call(edge.register_target, {"target": edge.Local("mine")})],
        "edge.Child.request": [
            Call(
                edge.Child(Answering()).request,
                {"command": "probe", "timeout": 5},
                {"command": "text"},
            )
        ],
        "edge.BenchmarkResult.with_metrics": [
            Call(
                lambda accuracy: result.with_metrics(accuracy=accuracy),
                {"accuracy": 0.5},
                {"accuracy": "text, empty text, " + NUMBERS},
            )
        ],
    }
