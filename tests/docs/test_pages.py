"""README and the pages of docs/: their links lead somewhere, and their code runs."""

import ast
import inspect
import re
import runpy
import shlex

import keras
import pytest
import tensorflow as tf
from keras import layers

import tfcompress as tfc
from tests.support.pages import DOCS, ROOT, blocks, pages
from tfcompress import converters, edge
from tfcompress.cli import main
from tfcompress.demo import load_digits

# Pages with a test of their own: it follows them as a reader does, file by file.
FOLLOWED = {
    "docs/extending.md",
    "docs/guides/raspberry_pi.md",
    "docs/guides/web_page.md",
}
NAMES = {"tfc": tfc, "converters": converters, "edge": edge, **{
    name: getattr(tfc, name) for name in ("budgets", "distill", "importance", "masks", "schedules")
}}  # fmt: skip
LINK = re.compile(r"(?:\]\(|\]: )(?![a-z]+:)([^)\s#]*)(#[^)\s]+)?")
PYTHON = [block for page in pages() for block in blocks(page, "python")]
COMMANDS = [
    (block.page, line)
    for page in pages()
    for block in blocks(page, "sh")
    for line in block.code.replace("\\\n", " ").splitlines()
    if line.startswith("tfcompress ")
]


def test_readme_is_one_screen():
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) <= 150


def anchors(page):
    """Return the anchors of a page: its headings, as GitHub and MkDocs spell them."""
    found = re.findall(r"^#+ (.+)$", page.read_text("utf-8"), re.MULTILINE)
    plain = (re.sub(r"[^\w\s-]", "", heading).strip().lower() for heading in found)
    return {"#" + re.sub(r"[\s-]+", "-", heading) for heading in plain}


def dead_links(page, text):
    """Return the links of a page to files that do not exist, and to headings that are not there."""
    dead = []
    for target, anchor in LINK.findall(text):
        file = (page.parent / target).resolve() if target else page
        if not file.exists() or (anchor and file.suffix == ".md" and anchor not in anchors(file)):
            dead.append(target + anchor)
    return dead


@pytest.mark.parametrize(
    "page",
    [*pages(), ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", ROOT / "edge/targets/README.md"],
    ids=lambda page: str(page.relative_to(ROOT)),
)
def test_links_lead_to_files_and_headings(page):
    assert dead_links(page, page.read_text("utf-8")) == []


def test_dead_links_are_found():
    text = "[a](gone.md) [b](faq.md#gone) [c](#gone) ![d](x.svg)"
    text += " [e](faq.md#my-model-does-not-convert)"
    assert dead_links(DOCS / "faq.md", text) == ["gone.md", "faq.md#gone", "#gone", "x.svg"]


def test_every_page_is_in_the_navigation():
    navigation = (ROOT / "mkdocs.yml").read_text("utf-8").partition("\nnav:")[2]
    listed = set(re.findall(r": (\S+\.md)$", navigation, re.MULTILINE))
    made = {"index.md", "contributing.md", "changelog.md", "guides/android.md"}
    assert listed - made == {str(page.relative_to(DOCS)) for page in pages()[1:]}


def test_the_reference_has_every_public_name():
    text = "".join(page.read_text("utf-8") for page in (DOCS / "reference").glob("*.md"))
    listed = re.findall(r"^::: (\S+)$", text, re.MULTILINE)
    public = [f"tfcompress.{name}" for name in tfc.__all__ if name not in ("converters", "edge")]
    public += [f"tfcompress.converters.{name}" for name in converters.__all__]
    public += [f"tfcompress.edge.{name}" for name in edge.__all__]
    assert sorted(listed) == sorted(public)


def test_pictures_show_the_measured_tables():
    pictures = runpy.run_path(str(DOCS / "scripts/pictures.py"))
    drawn = {f"{name}.svg": pictures["draw"](what) for name, what in pictures["PICTURES"].items()}
    stored = {file.name: file.read_text("utf-8") for file in (DOCS / "pictures").iterdir()}
    assert drawn == stored, "run: python docs/scripts/pictures.py"


def unknown_names(code):
    """Return the names of ours that code uses and that do not exist, and wrong keywords."""
    wrong = []
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Attribute) and held(node) is None and held(node.value) is not None:
            wrong.append(ast.unparse(node))
        if isinstance(node, ast.Call) and callable(called := held(node.func)):
            known = inspect.signature(called).parameters.values()
            if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in known):
                names = {parameter.name for parameter in known}
                given = {word.arg for word in node.keywords if word.arg}
                wrong += [f"{ast.unparse(node.func)}({name}=)" for name in sorted(given - names)]
    return wrong


def held(node):
    """Return the object of ours that an expression such as `tfc.masks.Block` names, or None."""
    if isinstance(node, ast.Name):
        return NAMES.get(node.id)
    if isinstance(node, ast.Attribute) and (parent := held(node.value)) is not None:
        return getattr(parent, node.attr, None)
    return None


@pytest.mark.parametrize("block", PYTHON, ids=lambda block: f"{block.page}:{block.line}")
def test_the_names_and_keywords_of_examples_exist(block):
    assert unknown_names(block.code) == []


def test_unknown_names_are_found():
    code = "tfc.Prun(1)\ntfc.Prune(schedule, sparsity=0.5)\nconverters.Int8(samples)\nkeras.x(y=1)"
    assert sorted(unknown_names(code)) == ["tfc.Prun", "tfc.Prune(sparsity=)"]


def unknown_options(line):
    """Return what a command line has that the command does not know."""
    words = shlex.split(line, comments=True)[1:]
    command = main.get_command(None, words[0])
    if command is None:
        return [words[0]]
    known = {option for parameter in command.params for option in parameter.opts}
    known |= {option for parameter in command.params for option in parameter.secondary_opts}
    return [word for word in words[1:] if re.match("--?[a-z]", word) and word not in known]


@pytest.mark.parametrize(("page", "line"), COMMANDS)
def test_the_commands_of_examples_exist(page, line):
    assert unknown_options(line) == []


def test_unknown_options_are_found():
    assert unknown_options("tfcompress convert a.keras b.tflite -p int8 --sparce # --no") == [
        "--sparce"
    ]
    assert unknown_options("tfcompress covert a.keras") == ["covert"]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A function that gives what the pages take for granted: a trained model, data, files."""
    keras.utils.set_random_seed(0)
    data = load_digits()
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1), name="input"),
            layers.Conv2D(16, 3, padding="same", activation="relu", name="stem"),
            layers.Conv2D(32, 3, padding="same", activation="relu", name="block_conv"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(32, activation="relu", name="block_dense"),
            layers.Dense(10, activation="softmax", name="classes"),
        ]
    )
    adam = keras.optimizers.Adam(3e-3)
    loss = "sparse_categorical_crossentropy"
    model.compile(adam, loss, metrics=["accuracy"], jit_compile=False)
    model.fit(data.x_train, data.y_train, epochs=4, verbose=0)
    folder = tmp_path_factory.mktemp("world")
    model.save(folder / "model.keras")
    converters.convert(model, folder / "float.tflite")
    x, y = data.x_train[:128], data.y_train[:128]
    tested = data.x_test[:270], data.y_test[:270]

    def make():
        return {
            "model": keras.models.load_model(folder / "model.keras"),
            "train": tf.data.Dataset.from_tensor_slices((x, y)).batch(64),
            "validation": tf.data.Dataset.from_tensor_slices(tested).batch(64),
            "x": x, "y": y, "x_validation": tested[0], "y_validation": tested[1],
            "samples": x[:64], "images": x[:64],
        }  # fmt: skip

    return make, folder / "float.tflite"


def with_short_training(monkeypatch):
    """Let `fit` train two epochs at most: that it can be called so is tested, not what it gives."""
    fit = keras.Model.fit

    def short(self, *args, epochs=1, **kwargs):
        return fit(self, *args, **{**kwargs, "epochs": min(epochs, 2), "verbose": 0})

    monkeypatch.setattr(keras.Model, "fit", short)
    # Compiling with XLA takes longer than training, and pages do not say `jit_compile=False`.
    monkeypatch.setattr("keras.src.trainers.trainer.model_supports_jit", lambda model: False)


RUN = sorted({block.page for block in PYTHON if block.runs} - FOLLOWED)


@pytest.mark.slow("trains, converts and measures as each page does")
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("page", RUN)
def test_the_examples_run(page, world, tmp_path, monkeypatch, capsys):
    make, file = world
    monkeypatch.chdir(tmp_path)
    for name in ("face.tflite", "any.tflite", "big.tflite"):
        (tmp_path / name).write_bytes(file.read_bytes())
    with_short_training(monkeypatch)
    names = make()
    for block in blocks(ROOT / page, "python"):
        if block.runs:
            code = "\n" * (block.line - 1) + block.code
            exec(compile(code, str(ROOT / page), "exec"), names)
