"""The command that runs a language model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import click

from .options import FILE, as_json, on_threads, print_json

__all__ = ["generate"]


@click.command(epilog="Example: tfcompress generate lm.tflite --tokens 15496,11 --new 20")
@click.argument("path", type=FILE)
@click.option("--tokens", help="Ids of the prompt, such as 15496,11.")
@click.option("--prompt", help="Text of the prompt; needs --tokenizer.")
@click.option(
    "--tokenizer",
    type=FILE,
    help="tokenizer.json of the package tokenizers, which must be installed: the answer is text.",
)
@click.option("--new", type=click.IntRange(1), help="Most tokens to generate; default: all.")
@click.option(
    "--temperature",
    type=click.FloatRange(0),
    default=0.0,
    show_default=True,
    help="What logits are divided by before one is drawn; 0 takes the most likely token.",
)
@click.option("--top-k", type=click.IntRange(1), help="Draw from so many of the most likely ones.")
@click.option(
    "--top-p",
    type=click.FloatRange(0, 1, min_open=True),
    help="Draw from the most likely ones that have this share of probability together.",
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the draws.")
@click.option("--stop", help="Ids of tokens that end the answer, such as 50256.")
@on_threads
@as_json
def generate(
    path: Path,
    tokens: str | None,
    prompt: str | None,
    tokenizer: Path | None,
    new: int | None,
    stop: str | None,
    threads: int | None,
    as_json: bool,
    **sampling: Any,
) -> None:
    """Continue a prompt with the language model in the .tflite file PATH.

    It is a file that `converters.convert_generator` wrote. Ids are printed, or text with
    --tokenizer, as they come.
    """
    from tfcompress import edge

    if (tokens is None) == (prompt is None):
        raise click.UsageError("Give --tokens or --prompt.")
    words: Any = None if tokenizer is None else _load(tokenizer)
    if prompt is not None and words is None:
        raise click.UsageError("--prompt goes with --tokenizer.")
    given = _ids("--tokens", tokens or "") if prompt is None else list(words.encode(prompt).ids)
    generator = edge.Generator(path, threads)
    answer = generator.generate(given, new, stop=_ids("--stop", stop or ""), **sampling)
    if as_json:
        found: dict[str, Any] = {"prompt": given, "tokens": list(answer)}
        print_json(found if words is None else {**found, "text": words.decode(found["tokens"])})
        return
    from tfcompress.model.tables import printable

    texts = _numbers(answer) if words is None else _pieces(words, answer)
    for text in texts:
        click.echo(printable(text), nl=False)
    click.echo()


def _numbers(answer: Iterable[int]) -> Iterator[str]:
    for index, token in enumerate(answer):
        yield f"{' ' if index else ''}{token}"


def _pieces(words: Any, answer: Iterable[int]) -> Iterator[str]:
    """Yield the text of the tokens as soon as their characters are whole."""
    ids: list[int] = []
    said = ""
    for token in answer:
        ids.append(token)
        text = words.decode(ids)
        if not text.endswith("\N{REPLACEMENT CHARACTER}"):
            yield text[len(said) :]
            said = text
    if ids:
        yield words.decode(ids)[len(said) :]


def _load(tokenizer: Path) -> Any:
    """Return the tokenizer of a file."""
    try:
        import tokenizers
    except ImportError as error:
        raise ImportError("--tokenizer needs a package: pip install tokenizers") from error
    try:
        return tokenizers.Tokenizer.from_file(str(tokenizer))
    except Exception as error:
        raise click.BadParameter(f"{tokenizer}: {error}", param_hint="--tokenizer") from error


def _ids(option: str, text: str) -> list[int]:
    try:
        return [int(part) for part in text.replace(",", " ").split()]
    except ValueError:
        raise click.BadParameter(
            f"{text!r} is no list of ids, such as 15496,11.", param_hint=option
        ) from None
