"""A language model's file, loaded once, with its cache from step to step."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..engines.cpu import last_line, load_interpreter
from ..errors import ModelRefused
from ..system.console import attempt
from ..system.runtime import runtime
from ..tensors import Array

DECODE, PREFILL = "decode", "prefill"
_CACHE = "kv_cache_"


@dataclass(frozen=True)
class _Signature:
    """A signature, and where its inputs and outputs are in its subgraph."""

    key: str
    subgraph: int
    length: int
    inputs: Mapping[str, int]
    outputs: Mapping[str, int]


class CacheEngine:
    """A file with the signatures `prefill_N` and `decode`, on the CPU.

    The inputs of a signature keep what is in them. After a step, the keys and values of the new
    tokens alone go from the outputs to the inputs: as fast as two sets of buffers that take turns,
    which tflite-runtime does not have.

    Args:
        path: A file that `tflite.check` accepted.
        threads: Number of CPU threads; None takes the runtime's default, which is one.
        quiet: Whether to hold the runtime's console output back.

    Attributes:
        max_tokens: Tokens that the cache holds.
        vocabulary: Number of logits.
        prefill: Number of tokens -> whether the signature that reads so many gives logits.

    Raises:
        ModelFileError: The file is corrupt.
        ModelRefused: The runtime cannot load the file.
        ValueError: The file is no language model.
    """

    def __init__(self, path: Path, threads: int | None, quiet: bool) -> None:
        self.path = path
        self._quiet = quiet
        self._interpreter = load_interpreter(path, threads, "xnnpack", quiet)
        # SignatureRunner's own calls; its public ones allocate in every run, and copy the caches.
        self._calls: Any = self._interpreter._interpreter
        found = self._interpreter._get_full_signature_list()
        if DECODE not in found:
            raise self._no_language_model(f"it has the signatures {sorted(found)}, and no 'decode'")
        self._signatures = {
            key: self._signature(key, parts)
            for key, parts in found.items()
            if key == DECODE or key.startswith(PREFILL)
        }
        decode = self._signatures[DECODE]
        self.max_tokens = self._length_of_caches()
        self.vocabulary = self._shape(decode.subgraph, decode.outputs["logits"])[-1]
        by_length = {s.length: s for s in self._signatures.values() if s.length > 1}
        self._by_length = {1: decode, **by_length}
        self.prefill = {n: "logits" in by_length[n].outputs for n in sorted(by_length)}
        self._ran: set[str] = set()

    def _length_of_caches(self) -> int:
        """Return the tokens that each cache holds, which all signatures have alike."""
        shapes = [
            {name: self._shape(s.subgraph, index) for name, index in self._caches(s.inputs)}
            for s in self._signatures.values()
        ]
        lengths = {shape[2] if len(shape) == 4 else 0 for shape in shapes[0].values()}
        if len(lengths) != 1 or 0 in lengths or any(found != shapes[0] for found in shapes):
            raise self._no_language_model(
                f"its signatures have caches of the shapes {shapes}, where each is known to be "
                "(1, heads, max_tokens, width)"
            )
        return lengths.pop()

    def _signature(self, key: str, parts: Any) -> _Signature:
        """Check a signature, and allocate its tensors."""
        inputs, outputs = parts["inputs"], parts["outputs"]
        caches = dict(self._caches(inputs))
        others = set(inputs) - set(caches)
        if not caches or others != {"tokens", "input_pos"} or not caches.keys() <= outputs.keys():
            raise self._no_language_model(
                f"its signature '{key}' takes {sorted(inputs)}, where 'tokens', 'input_pos' and "
                "caches named 'kv_cache_...' are known, and gives "
                f"{sorted(outputs)}"
            )
        if key == DECODE and "logits" not in outputs:
            raise self._no_language_model("its signature 'decode' gives no 'logits'")
        subgraph = self._calls.GetSubgraphIndexFromSignature(key)
        _, error, said = attempt(lambda: self._calls.AllocateTensors(subgraph), self._quiet)
        if error is not None:
            raise self._refused("prepare", error, said)
        for _, index in self._caches(inputs):
            self._view(subgraph, index)[...] = 0
        length = self._shape(subgraph, inputs["tokens"])[-1]
        return _Signature(key, subgraph, length, inputs, outputs)

    def run(self, tokens: Array, position: int, length: int) -> Array | None:
        """Compute tokens whose predecessors are in the cache, and add them to it.

        Args:
            tokens: int32 array of at most `length` ids.
            position: Place of the first one in the sequence. `position + length` is at most
                `max_tokens`, since the signature writes as many places of the cache.
            length: Tokens of the signature: 1 or one of `prefill`.

        Returns:
            Logits of shape (tokens, vocabulary); None if the signature gives none.
        """
        signature, count = self._by_length[length], len(tokens)
        filled = np.zeros((1, length), np.int32)
        filled[0, :count] = tokens
        positions = np.arange(position, position + length, dtype=np.int32)
        self._calls.SetTensor(signature.inputs["tokens"], filled, signature.subgraph)
        self._calls.SetTensor(signature.inputs["input_pos"], positions, signature.subgraph)
        self._invoke(signature)
        new = slice(position, position + count)
        # Tokens of a prompt are decoded after those that were read together, never before.
        readers = [signature] if length == 1 else self._signatures.values()
        for name, index in self._caches(signature.outputs):
            part = self._view(signature.subgraph, index)[:, :, new]
            for reader in readers:
                self._view(reader.subgraph, reader.inputs[name])[:, :, new] = part
        place = signature.outputs.get("logits")
        return None if place is None else np.array(self._view(signature.subgraph, place)[0, :count])

    def _invoke(self, signature: _Signature) -> None:
        error: Exception | None = None
        said = ""
        if signature.key in self._ran:
            try:
                self._calls.Invoke(signature.subgraph)
            except (ValueError, RuntimeError) as raised:
                error = raised
        else:
            # Delegates may still log in the first run after an allocation.
            run = self._calls.Invoke
            _, error, said = attempt(lambda: run(signature.subgraph), self._quiet)
        if error is not None:
            raise self._refused("run", error, said)
        self._ran.add(signature.key)

    def _view(self, subgraph: int, index: int) -> Array:
        """Return the memory of a tensor, which the runtime reads and writes."""
        view: Array = self._calls.tensor(self._calls, index, subgraph)
        return view

    def _shape(self, subgraph: int, index: int) -> tuple[int, ...]:
        details = self._interpreter._get_tensor_details(index, subgraph)
        return tuple(int(size) for size in details["shape"])

    def _caches(self, places: Mapping[str, int]) -> list[tuple[str, int]]:
        return [(name, index) for name, index in places.items() if name.startswith(_CACHE)]

    def _no_language_model(self, why: str) -> ValueError:
        return ValueError(
            f"{self.path} is no language model as convert_generator writes them: {why}"
        )

    def _refused(self, what: str, error: Exception, said: str) -> ModelRefused:
        return ModelRefused(
            f"{self.path}: {runtime().name} {runtime().version} cannot {what} this model: "
            f"{last_line(error, said)}"
        )
