import importlib.util
import json
import subprocess
import sys

import numpy as np
import pytest

from tests.golden.test_golden import HERE
from tests.support.helpers import need
from tests.zoo.language_models import CHARACTERS, character_tokenizer
from tfcompress import converters, edge

FILE = HERE / "language_model.tflite"

CLIENT = """
import sys, litert_lm
litert_lm.set_min_log_severity(litert_lm.LogSeverity.ERROR)
path, prompt, count = sys.argv[1:]
with litert_lm.Engine(path, max_num_tokens=16) as engine:
    greedy = litert_lm.SamplerConfig(top_k=1, top_p=1.0, temperature=1.0)
    with engine.create_session(
        apply_prompt_template=False, sampler_config=greedy, max_output_tokens=int(count)
    ) as session:
        session.run_prefill([prompt])
        print("ANSWER", session.run_decode().texts[0])
"""


@pytest.fixture
def tokenizer(tmp_path):
    character_tokenizer().save(str(tmp_path / "tokenizer.json"))
    return tmp_path / "tokenizer.json"


def test_litert_lm_answers_what_keras_would(tokenizer, tmp_path):
    for module in ("litert_lm", "litert_lm_builder"):
        need(
            importlib.util.find_spec(module),
            "pip install -c constraints.txt -e '.[test]' brings litert-lm, which is missing",
        )
    prompt = [3, 1, 4, 1, 5, 9, 2]
    expected = list(edge.Generator(FILE).generate(prompt, 8))
    unused = next(token for token in range(50) if token not in expected)
    path = converters.bundle(FILE, tokenizer, tmp_path / "lm.litertlm", stop=[unused])
    text = "".join(CHARACTERS[token] for token in prompt)
    done = subprocess.run(
        [sys.executable, "-c", CLIENT, path, text, "8"],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    answers = [line for line in done.stdout.splitlines() if line.startswith("ANSWER")]
    assert answers == ["ANSWER " + "".join(CHARACTERS[t] for t in expected)], done.stderr[-3000:]


@pytest.mark.parametrize(
    ("changed", "kind", "message"),
    [
        ({"path": "lm.tflite"}, ValueError, "ends in '.litertlm'"),
        ({"stop": []}, TypeError, "one or more token ids"),
        ({"stop": [50]}, ValueError, "ids from 0 to 49"),
        ({"start": 50}, ValueError, "`start` must be ids from 0 to 49"),
        ({"tokenizer": "no.json"}, ValueError, "a tokenizer.json of the package tokenizers"),
        ({"file": edge.system.tflite.PROBE}, converters.ConversionError, "wants 'decode' and"),
    ],
)
def test_what_cannot_be_bundled_is_refused(changed, kind, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tokenizer.json").write_text(json.dumps({"model": {}}), "utf-8")
    sound = {"file": FILE, "tokenizer": "tokenizer.json", "path": "lm.litertlm", "stop": [0]}
    with pytest.raises(kind, match=message):
        converters.bundle(**{**sound, **changed})
    assert [found.name for found in tmp_path.iterdir()] == ["tokenizer.json"]


def test_without_the_builder_the_error_says_what_to_install(tokenizer, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "litert_lm_builder", None)
    with pytest.raises(ImportError, match=r"pip install 'tfcompress\[bundle\]'"):
        converters.bundle(FILE, tokenizer, tmp_path / "lm.litertlm", stop=[np.int64(0)])
