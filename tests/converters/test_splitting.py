"""Two files compute what one did, bit for bit, wherever it is cut."""

import keras
import numpy as np
import pytest
from keras import layers

from tfcompress import converters, edge
from tfcompress.converters import splitting
from tfcompress.converters.jobs import split
from tfcompress.converters.passes.split import parts
from tfcompress.converters.splitting import Cut


def net():
    """Branches, a sum of what lies far apart, and an output that others read, too."""
    image, extra = keras.Input((8, 8, 2), name="image"), keras.Input((4,), name="extra")
    x = layers.Conv2D(4, 3, padding="same", activation="relu")(image)
    y = layers.Conv2D(4, 3, padding="same")(x)
    pooled = layers.GlobalAveragePooling2D(name="pooled")(layers.Add()([x, y]))
    joined = layers.Concatenate()([pooled, layers.Dense(4)(extra)])
    return keras.Model([image, extra], {"pooled": pooled, "head": layers.Dense(3)(joined)})


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    data = {
        "image": rng.random((16, 8, 8, 2)).astype("float32"),
        "extra": rng.random((16, 4)).astype("float32"),
    }
    precisions = {
        folder / "float32.tflite": converters.Float32(),
        folder / "int8.tflite": converters.Int8(data),
    }
    return {file.path.stem: file.path for file in converters.convert_all(net(), precisions)}


@pytest.mark.parametrize("name", ["float32", "int8"])
def test_every_cut_is_equal_bit_for_bit(files, name, tmp_path):
    path = str(files[name])
    places = split.job({"path": path})["places"]
    assert [place["at"] for place in places] == list(range(1, len(places) + 1))
    at = [place["at"] for place in places]
    assert not any(split.job({"path": path, "at": at, "folder": str(tmp_path)})["differences"])
    # Each op is in one part, and constants are with the ops that read them.
    whole = converters.inspect(path)
    for place in places:
        parts = [converters.inspect(tmp_path / f"{place['at']}_{i}.tflite") for i in (1, 2)]
        assert [len(part.nodes) for part in parts] == [place["at"], len(places) + 1 - place["at"]]
        assert sum(len(part.constants) for part in parts) <= len(whole.constants) + 2
        crossing = [
            parts[1].tensors[index]
            for key, index in parts[1].signatures[0].inputs.items()
            if key in parts[0].signatures[0].outputs
        ]
        assert sum(tensor.bytes for tensor in crossing) == place["bytes"] > 0


def test_a_part_that_computes_something_else_is_noticed(files, tmp_path, monkeypatch):
    keras.utils.set_random_seed(1)
    other = converters.convert(net(), tmp_path / "other.tflite", converters.Float32())
    second = split.parts(other.path.read_bytes(), 3)[1]
    monkeypatch.setattr(split, "parts", lambda content, at: (parts(content, at)[0], second))
    [said] = split.job({"path": str(files["float32"]), "at": [3], "folder": str(tmp_path)})[
        "differences"
    ]
    assert "differs" in said


def test_two_files_are_written_and_run_one_after_the_other(files, tmp_path):
    made = converters.split(files["int8"], tmp_path / "1.tflite", tmp_path / "2.tflite", at=4)
    assert "after op 4" in str(made)
    assert made.to_dict()["cut"]["at"] == 4
    rng = np.random.default_rng(1)
    given = {"image": rng.random((1, 8, 8, 2)), "extra": rng.random((1, 4))}
    given = {name: x.astype("float32") for name, x in given.items()}
    whole, *parts = (edge.Runner(file) for file in (files["int8"], made.first, made.second))
    for part in parts:
        given |= part.named({info.name: given[info.name] for info in part.inputs})
    for name, value in whole.named({n: given[n] for n in ("image", "extra")}).items():
        np.testing.assert_array_equal(given[name], value)


def test_the_place_with_the_most_samples_is_taken(files, tmp_path, monkeypatch):
    def measured(_folder, cuts, link, threads):
        assert (link, threads) == (1e6, 2)
        gains = np.where(np.arange(len(cuts)) == 2, 1.6, 1.2)
        return 2.0, [
            Cut(c.at, c.op, c.bytes, 1.0, 1.0, 0.1, float(g))
            for c, g in zip(cuts, gains, strict=True)
        ]

    monkeypatch.setattr(splitting, "_measure", measured)
    targets = tmp_path / "1.tflite", tmp_path / "2.tflite"
    made = converters.split(files["float32"], *targets, link=1e6, threads=2)
    assert made.cut == made.measured[2]
    assert "1.60x" in str(made)
    assert max(map(len, str(made).splitlines())) <= 100


def test_where_nothing_is_gained_the_numbers_are_told_and_nothing_is_written(files, tmp_path):
    targets = tmp_path / "1.tflite", tmp_path / "2.tflite"
    # A byte a second: to send takes longer than to compute.
    with pytest.raises(converters.ConversionError, match=r"not worth.*\n(.*\n)*.*0\.00x"):
        converters.split(files["float32"], *targets, link=1.0)
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_cut_is_refused(files, tmp_path):
    targets = tmp_path / "1.tflite", tmp_path / "2.tflite"
    for at in (0, 99):
        with pytest.raises(ValueError, match="`at`"):
            converters.split(files["float32"], *targets, at=at)
    with pytest.raises(ValueError, match="two files"):
        converters.split(files["float32"], targets[0], targets[0], at=1)
    one = keras.Sequential([keras.Input((4,)), layers.Dense(2)])
    single = converters.convert(one, tmp_path / "one.tflite", converters.Float32())
    with pytest.raises(converters.ConversionError, match="one op"):
        converters.split(single, *targets)
    x = keras.Input((6, 3))
    loop = converters.convert(
        keras.Model(x, layers.GRU(2)(x)), tmp_path / "loop.tflite", batch_size=1
    )
    with pytest.raises(converters.ConversionError, match="several graphs"):
        converters.split(loop, *targets, at=1)
