"""`bundle`: a language model's file and its tokenizer -> one file for LiteRT-LM."""

from __future__ import annotations

import importlib
import io
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tfcompress.converters.errors import ConversionError
from tfcompress.converters.file.read import inspect
from tfcompress.edge.arguments import check_integer, check_path, refuse
from tfcompress.edge.system.files import check_folder, write_whole
from tfcompress.edge.system.scratch import scratch_folder
from tfcompress.edge.system.tflite import check

_MISSING = (
    "`bundle` writes the format of LiteRT-LM with its own package, which is missing: "
    "pip install 'tfcompress[bundle]', or litert-lm-builder"
)


def bundle(
    file: str | os.PathLike[str],
    tokenizer: str | os.PathLike[str],
    path: str | os.PathLike[str],
    *,
    stop: Sequence[int],
    start: int | None = None,
) -> Path:
    """Write a .litertlm file, which LiteRT-LM runs on Android, iOS, desktops and the web.

    It holds a file of `convert_generator`, a tokenizer and what LiteRT-LM must know of both: with
    it, text goes in and comes out. Needs the package litert-lm-builder. LiteRT-LM keeps its form of
    the weights beside the file (`.xnnpack_cache`), and may take that of an older one for it: give
    another model another name.

    >>> from tfcompress import converters
    >>> converters.bundle("nowhere.tflite", "tokenizer.json", "model.litertlm", stop=[0])
    Traceback (most recent call last):
    ...
    tfcompress.edge.errors.ModelFileError: nowhere.tflite: there is no such file

    Args:
        file: A .tflite file that `convert_generator` wrote.
        tokenizer: The `tokenizer.json` that the package tokenizers reads, as models on Hugging Face
            have it.
        path: The file to write. It ends in ".litertlm", and its folder exists.
        stop: Ids of the tokens that end an answer, one or more.
        start: Id of the token that begins each prompt. Defaults to None, no such token.

    Returns:
        The path.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: A path or an id cannot be used, or `tokenizer` is no such file.
        PermissionError: The folder of `path` may not be written in.
        ModelFileError: There is no readable .tflite file at `file`.
        ConversionError: The file is no language model.
        ImportError: litert-lm-builder is not installed.
    """
    target = check_path("path", path).expanduser()
    if target.suffix != ".litertlm" or target.is_dir():
        refuse("path", "a file that ends in '.litertlm'", str(target))
    check_folder(target)
    source, words = check(file), check_path("tokenizer", tokenizer).expanduser()
    if not isinstance(stop, list | tuple) or not stop:
        refuse("stop", "a list of one or more token ids", stop, TypeError)
    ends = [check_integer(f"stop[{index}]", token, 0) for index, token in enumerate(stop)]
    if start is not None:
        check_integer("start", start, 0)
    _check_tokenizer(words)
    max_tokens, vocabulary = _sizes(source)
    for token in (*ends, *(() if start is None else (start,))):
        if token >= vocabulary:
            name = "start" if token == start else "stop"
            refuse(name, f"ids from 0 to {vocabulary - 1}, as the file has them", token)
    try:
        builder = importlib.import_module("litert_lm_builder")
        proto = importlib.import_module("litert_lm_builder.runtime.proto.llm_metadata_pb2")
    except ImportError as error:
        raise ImportError(_MISSING) from error
    about = proto.LlmMetadata(max_num_tokens=max_tokens)
    about.llm_model_type.generic_model.SetInParent()
    for token in ends:
        about.stop_tokens.add().token_ids.ids.append(token)
    if start is not None:
        about.start_token.token_ids.ids.append(start)
    write_whole({target: _built(builder, about, source, words)})
    return target


def _built(builder: Any, about: Any, source: Path, words: Path) -> bytes:
    """Return the content of the file."""
    with scratch_folder() as folder:
        metadata, copy = folder / "metadata.pb", folder / "tokenizer.json"
        metadata.write_bytes(about.SerializeToString())
        copy.write_bytes(words.read_bytes())  # the builder goes by the ending
        made = builder.LitertLmFileBuilder()
        made.add_system_metadata(
            builder.Metadata(key="Authors", value="tfcompress", dtype=builder.DType.STRING)
        )
        made.add_tflite_model(str(source), builder.TfLiteModelType.PREFILL_DECODE)
        made.add_llm_metadata(str(metadata))
        made.add_hf_tokenizer(str(copy))
        stream = io.BytesIO()
        made.build(stream)
        return stream.getvalue()


def _check_tokenizer(words: Path) -> None:
    """Check that a file is a `tokenizer.json`."""
    wanted = "a tokenizer.json of the package tokenizers, with a 'model' in it"
    try:
        found = json.loads(words.read_text("utf-8"))
    except (OSError, ValueError):
        refuse("tokenizer", wanted, str(words))
    if not isinstance(found, dict) or "model" not in found:
        refuse("tokenizer", wanted, str(words))


def _sizes(source: Path) -> tuple[int, int]:
    """Return the tokens that the cache holds, and the size of the vocabulary."""
    found = inspect(source)
    signatures = {signature.key: signature for signature in found.signatures}
    decode = signatures.get("decode")
    if decode is None or not any(key.startswith("prefill") for key in signatures):
        raise ConversionError(
            f"{source} has the signatures {sorted(signatures)}, where LiteRT-LM wants 'decode' and "
            "'prefill_N': write the file with convert_generator"
        )
    cache = found.tensors[decode.inputs["kv_cache_k_0"]].shape
    logits = found.tensors[decode.outputs["logits"]].shape
    return int(cache[2] or 0), int(logits[-1] or 0)
