"""The notebooks run from top to bottom, as in Colab."""

import os
import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

# TensorFlow's libraries say that there is no GPU, and on some processors that oneDNN is on, as they
# are loaded, before they read TF_CPP_MIN_LOG_LEVEL, which the notebooks set.
GREETING = re.compile(
    r"^(WARNING: All log messages before absl::InitializeLog|I0000 .*(cudart_stub|port)\.cc).*\n",
    re.MULTILINE,
)
# Words that a notebook prints, if it goes to its end.
SAID = {
    "04_why_is_int8_bad": ("By layer, the worst first", "int8, rescaled", "repaired "),
    "05_tell_me_the_size": ("The target is met.", "converters.", "the same file: True"),
    "06_sentence_encoder": ("4 bits   cosine 0.9", "speed-up", "find the same notes: True"),
    "07_language_model": ("perplexity", "as in Keras: True", "speed-up", "python.litertlm: "),
}
LARGE = {"06_sentence_encoder"}  # 22 million weights, which it downloads
NOTEBOOKS = [
    pytest.param(
        path,
        id=path.stem,
        marks=pytest.mark.large if path.stem in LARGE else pytest.mark.slow("a whole notebook"),
    )
    for path in sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))
]


def executed(notebook, folder):
    """Run a notebook, and return what it printed on stdout and on stderr."""
    # In a kernel that sees pytest, ipykernel leaves file descriptor 2 alone, on which TensorFlow
    # and LiteRT talk.
    env = {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"}
    NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": folder}}
    ).execute(env=env)
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    noise = "".join(o["text"] for o in outputs if o.get("name") == "stderr")
    return "".join(output.get("text", "") for output in outputs), noise


@pytest.mark.parametrize("path", NOTEBOOKS)
def test_runs(path, monkeypatch, tmp_path):
    monkeypatch.setenv("TFCOMPRESS_FAST", "1")
    notebook = nbformat.read(path, as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells), "commit it without outputs"
    printed, noise = executed(notebook, tmp_path)
    for words in SAID.get(path.stem, ("speed-up", "80.0%")):
        assert words in printed
    # Neither TensorFlow nor LiteRT talks into it.
    assert GREETING.sub("", noise) == ""


@pytest.mark.parametrize("program", ["os.write(2, b'noise\\n')", "os.system('echo noise >&2')"])
def test_noise_of_c_and_of_children_is_seen(program, tmp_path):
    cells = [nbformat.v4.new_code_cell(f"import os\nnothing = {program}\nprint('cell')")]
    # The stream is read by a thread, which may be a moment late.
    cells.append(nbformat.v4.new_code_cell("import time\ntime.sleep(1)"))
    printed, noise = executed(nbformat.v4.new_notebook(cells=cells), tmp_path)
    assert noise == "noise\n"
    assert "cell" in printed
