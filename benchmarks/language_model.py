"""A language model on WikiText-2: its perplexity and its speed in float, int8 and int4.

A GPT-2 of 2.2 million weights learns from one part of WikiText-2, as tokens of a byte-level BPE of
2,048 that is trained on the same part, and is tested on another. Every perplexity is computed from
the .tflite file, over windows of 256 tokens, with none before a window. Then the zeros: half of the
weights pruned while it trains on.

The speed is that of a larger one, of 29.7 million random weights and 512 tokens: `edge.Generator`
decodes with all files in turns, a few tokens each. "No cache" runs the whole sequence of 512 for
each token, as `convert` of the model does it.

    python benchmarks/language_model.py --data wikitext2 --cache cache --json language_model.json
    python benchmarks/language_model.py --parts speed --cache cache --json speed.json

The speed alone takes some minutes, and needs no data. The folder of `--data` holds `test.txt`, to
train on, and `valid.txt`, to test. What is in the cache is not made anew. Exits with 1 if a target
is missed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import keras_hub
import numpy as np
import tensorflow as tf
from rich.console import Console
from rich.table import Table
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

import tfcompress as tfc
from tfcompress import converters, edge

VOCABULARY, WINDOW = 2048, 256
SMALL = {
    "vocabulary_size": VOCABULARY,
    "num_layers": 4,
    "num_heads": 4,
    "hidden_dim": 192,
    "intermediate_dim": 768,
    "max_sequence_length": WINDOW,
    "dropout": 0.1,
}
LARGE = {
    "vocabulary_size": 8192,
    "num_layers": 8,
    "num_heads": 8,
    "hidden_dim": 512,
    "intermediate_dim": 2048,
    "max_sequence_length": 512,
}
SMOKE = {"num_layers": 1, "hidden_dim": 32, "num_heads": 2, "intermediate_dim": 64}

PARTS = PERPLEXITY, SPEEDS = "perplexity", "speed"
FLOAT, INT8, INT4, BLOCKS = "float32", "int8", "int4", "int4, blocks of 32"
PRECISIONS: dict[str, converters.Precision] = {
    FLOAT: converters.Float32(),
    INT8: converters.WeightOnly(bits=8),
    INT4: converters.WeightOnly(bits=4),
    BLOCKS: converters.WeightOnly(bits=4, block=32, activations="float32"),
}
# Perplexity over that of the float file, bytes over those of the float file.
TARGETS = {INT8: (1.001, 0.29), INT4: (1.01, 0.16), "half zeros, int8": (1.03, 0.29)}
SPEED = {FLOAT: (30.0, "no cache"), INT8: (2.0, FLOAT), INT4: (2.5, FLOAT)}


def tokenizer(text: Path, cache: Path) -> Tokenizer:
    file = cache / "tokenizer.json"
    if not file.exists():
        made = Tokenizer(models.BPE())
        made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        made.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=VOCABULARY,
            show_progress=False,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        )
        made.train([str(text)], trainer)
        made.save(str(file))
    return Tokenizer.from_file(str(file))


def build(config: dict[str, Any]) -> Any:
    keras.utils.set_random_seed(0)
    backbone = keras_hub.models.GPT2Backbone(**config)
    return keras_hub.models.GPT2CausalLM(backbone, preprocessor=None)


def train(model: Any, ids: np.ndarray, epochs: int, rate: float, callbacks: Any = ()) -> None:
    """Predict each token from those before it, in windows that begin anywhere."""
    batch, rng = 16, np.random.default_rng(0)
    steps = max(1, len(ids) // (batch * WINDOW))

    starts = rng.integers(0, len(ids) - WINDOW - 1, epochs * steps * batch)
    rows = np.stack([ids[start : start + WINDOW + 1] for start in starts])
    x = {"token_ids": rows[:, :-1], "padding_mask": np.ones_like(rows[:, :-1])}
    batches = tf.data.Dataset.from_tensor_slices((x, rows[:, 1:])).batch(batch)
    decay = keras.optimizers.schedules.CosineDecay(rate, epochs * steps, warmup_steps=0)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.AdamW(decay, weight_decay=0.01), loss, jit_compile=False)
    model.fit(
        batches,
        epochs=epochs,
        steps_per_epoch=steps,
        verbose=2,
        shuffle=False,
        callbacks=list(callbacks),
    )


def weights(file: Path, make: Callable[[], Any], config: dict[str, Any]) -> Any:
    """Return a model with the weights of a file, which is made if it is missing."""
    model = build(config)
    if not file.exists():
        made = make()
        made.backbone.save_weights(file)
    model.backbone.load_weights(file)
    return model


def generator_file(model: Any, file: Path, tokens: int, precision: Any, **options: Any) -> Path:
    if not file.exists():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of runtimes before 2.17
            converters.convert_generator(
                model, file, max_tokens=tokens, prefill=(128,), precision=precision, **options
            )
    return file


def slug(name: str) -> str:
    return name.replace(", ", "_").replace(" ", "_")


def perplexities(args: argparse.Namespace, config: dict[str, Any]) -> list[dict[str, Any]]:
    texts = {part: (args.data / f"{part}.txt").read_text("utf-8") for part in ("test", "valid")}
    words = tokenizer(args.data / "test.txt", args.cache)
    ids = {part: np.array(words.encode(text).ids, "int32") for part, text in texts.items()}
    tested = ids["valid"][: args.tokens or None]

    def trained() -> Any:
        model = build(config)
        train(model, ids["test"], args.epochs, 2e-3)
        return model

    dense = weights(args.cache / "dense.weights.h5", trained, config)

    def pruned() -> Any:
        model = build(config)
        model.set_weights(dense.get_weights())
        steps = max(1, len(ids["test"]) // (16 * WINDOW)) * args.pruning_epochs
        schedule = tfc.schedules.Polynomial(0.0, 0.5, begin=0, end=max(1, steps // 2))
        prune = tfc.Prune(schedule, filters="transformer")
        train(model, ids["test"], args.pruning_epochs, 5e-4, [prune])
        return model

    sparse = weights(args.cache / "half_zeros.weights.h5", pruned, config)
    wanted = [(name, dense, precision) for name, precision in PRECISIONS.items()]
    wanted += [("half zeros", sparse, PRECISIONS[FLOAT])]
    wanted += [("half zeros, int8", sparse, PRECISIONS[INT8])]
    results = []
    for name, model, precision in wanted:
        file = args.cache / f"{slug(name)}.tflite"
        generator_file(model, file, WINDOW, precision, prefill_logits=True)
        found = converters.inspect(file)
        value = edge.perplexity(file, tested)
        results.append(
            {
                "file": name,
                "perplexity": value,
                "bytes": found.bytes,
                "gzip_bytes": found.gzip_bytes,
                "zeros": found.zeros,
                "tokens": len(tested),
            }
        )
        print(results[-1], flush=True)
    return results


def speeds(args: argparse.Namespace, config: dict[str, Any]) -> dict[str, list[float]]:
    """Return milliseconds a token of each file, for each turn."""
    model, room = build(config), config["max_sequence_length"]
    files = {
        name: generator_file(model, args.cache / f"large_{slug(name)}.tflite", room, precision)
        for name, precision in PRECISIONS.items()
    }
    whole = args.cache / "large_whole.tflite"
    if not whole.exists():
        shapes = {"token_ids": (1, room), "padding_mask": (1, room)}
        converters.convert(model, whole, input_shapes=shapes)
    prompt = np.random.default_rng(0).integers(0, config["vocabulary_size"], room // 2)
    given = {name: np.ones((1, room), "int32") for name in ("token_ids", "padding_mask")}
    runner = edge.Runner(whole, threads=1)
    generators = {name: edge.Generator(file, threads=1) for name, file in files.items()}

    def decode(generator: edge.Generator) -> float:
        answer = generator.generate(prompt, args.decoded + 1)
        next(answer)  # the prompt is read
        start = time.perf_counter()
        for _ in range(args.decoded):
            next(answer)
        return (time.perf_counter() - start) / args.decoded * 1e3

    def run() -> float:
        start = time.perf_counter()
        runner(given)
        return (time.perf_counter() - start) * 1e3

    turns: dict[str, list[float]] = {"no cache": [], **{name: [] for name in generators}}
    for turn in range(args.rounds + 1):
        now = {"no cache": run(), **{name: decode(g) for name, g in generators.items()}}
        if turn:  # the first one warms up
            for name, value in now.items():
                turns[name].append(value)
    return turns


def ratio(turns: dict[str, list[float]], name: str, over: str) -> float:
    return statistics.median(a / b for a, b in zip(turns[over], turns[name], strict=True))


def show(found: list[dict[str, Any]], turns: dict[str, list[float]]) -> None:
    """Print what was measured."""
    console = Console(width=100)
    table = Table(
        "file", "perplexity", "bytes", "share", "gzip", "zeros", title="2.2M weights, WikiText-2"
    )
    for row in found:
        table.add_row(
            row["file"],
            f"{row['perplexity']:.3f}",
            f"{row['bytes']:,}",
            f"{row['bytes'] / found[0]['bytes']:.3f}",
            f"{row['gzip_bytes']:,}",
            f"{row['zeros']:.0%}",
        )
    if found:
        console.print(table)
    speed = Table("file", "ms a token", "over float32", title="29.7M weights, 512 tokens")
    for name, times in turns.items():
        speed.add_row(name, f"{statistics.median(times):.2f}", f"{ratio(turns, name, FLOAT):.2f}x")
    if turns:
        console.print(speed)


def missed(found: list[dict[str, Any]], turns: dict[str, list[float]]) -> list[str]:
    rows = {row["file"]: row for row in found}
    said = []
    for name, (worse, share) in TARGETS.items() if found else ():
        for figure, limit in (("perplexity", worse), ("bytes", share)):
            value = rows[name][figure] / rows[FLOAT][figure]
            if value > limit:
                said.append(f"{name}: {figure} {value:.4f} of float32's, above {limit}")
    for name, (least, over) in SPEED.items() if turns else ():
        if (value := ratio(turns, name, over)) < least:
            said.append(f"{name}: {value:.2f}x of {over}, below {least}x")
    return said


def main() -> int:
    """Train, convert, measure, print, and compare with the targets."""
    parser = argparse.ArgumentParser(description="A language model on WikiText-2")
    parser.add_argument("--data", type=Path, help="folder of test.txt and valid.txt")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="default: both")
    parser.add_argument("--cache", type=Path, default=Path("language_model_cache"))
    parser.add_argument("--json", type=Path, help="write the results here, too")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--pruning-epochs", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=0, help="of the test; default: all")
    parser.add_argument("--rounds", type=int, default=10, help="turns of each file")
    parser.add_argument("--decoded", type=int, default=16, help="tokens to a turn")
    parser.add_argument("--smoke", action="store_true", help="tiny nets: does it run?")
    args = parser.parse_args()
    if PERPLEXITY in args.parts and args.data is None:
        parser.error("the perplexity needs --data")
    args.cache.mkdir(parents=True, exist_ok=True)
    tiny = SMOKE if args.smoke else {}
    found = perplexities(args, {**SMALL, **tiny}) if PERPLEXITY in args.parts else []
    turns = speeds(args, {**LARGE, **tiny}) if SPEEDS in args.parts else {}
    show(found, turns)
    failed = missed(found, turns)
    for text in failed:
        print("MISSED", text)
    if args.json:
        ratios = {
            name: {"over": over, "median": ratio(turns, name, over)}
            for name, (_, over) in (SPEED.items() if turns else ())
        }
        results = {
            "perplexity": found,
            "ms_a_token": turns,
            "ratios": ratios,
            "missed": failed,
        }
        args.json.write_text(json.dumps(results, indent=1) + "\n", "utf-8")
    return int(bool(failed))


if __name__ == "__main__":
    raise SystemExit(main())
