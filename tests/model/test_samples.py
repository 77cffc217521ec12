import functools

import numpy as np
import pytest

from tfcompress.model.samples import InputSpec, load_samples

IMAGE = InputSpec("image", (None, 4, 4, 1), "float32")
IDS = InputSpec("ids", (None, 4), "int32")
VECTOR = InputSpec("vector", (None, 3), "float32")
FREE = InputSpec("free", (None, None, None, 1), "float32")
BOTH = [IDS, VECTOR]
OTHER = InputSpec("other", (None, 3), "float32")


@pytest.fixture
def images():
    return np.random.default_rng(0).random((7, 4, 4, 1), "float32")


def same(loaded, expected):
    assert list(loaded) == [IMAGE.name]
    np.testing.assert_array_equal(loaded["image"], expected)


def forms(x, folder):
    import tensorflow as tf

    y = np.arange(len(x))
    np.savez(folder / "named.npz", image=x, labels=y)
    np.savez(folder / "x.npz", x=x, y=y)
    np.savez(folder / "single.npz", anything=x)
    np.save(folder / "plain.npy", x)
    data = tf.data.Dataset.from_tensor_slices
    return {
        "array": x,
        "tensor": tf.constant(x),
        "dict": {"image": x},
        "generator of samples": (sample for sample in x),
        "generator of batches": (x[i : i + 3] for i in range(0, 7, 3)),
        "generator of [batch], as the TFLite converter wants it": (
            [x[i : i + 1]] for i in range(7)
        ),
        "generator of dicts": ({"image": sample} for sample in x),
        "generator of (x, y)": zip(x, y, strict=True),
        "list of samples": list(x),
        "dataset": data(x),
        "dataset, batched, with targets": data((x, y)).batch(2),
        "dataset of dicts with targets and weights": data(({"image": x}, y, y)).batch(3),
        "npz by name": folder / "named.npz",
        "npz with x": str(folder / "x.npz"),
        "npz with one array": folder / "single.npz",
        "npy": folder / "plain.npy",
    }


def test_every_form_gives_the_same_samples(images, tmp_path):
    for name, data in forms(images, tmp_path).items():
        try:
            same(load_samples(data, [IMAGE]), images)
        except Exception as error:
            raise AssertionError(name) from error


def test_arrays_are_thinned_evenly_and_iterables_read_no_further_than_needed(images):
    thinned = load_samples(images, [IMAGE], max_samples=4)["image"]
    np.testing.assert_array_equal(thinned, images[[0, 2, 4, 6]])

    taken = []

    def endless():
        while True:
            taken.append(1)
            yield images[0]

    assert len(load_samples(endless(), [IMAGE], max_samples=5)["image"]) == 5
    assert len(taken) == 5


def test_casts_what_loses_nothing(images):
    pixels = (images * 255).astype("uint8")
    loaded = load_samples(pixels, [IMAGE])["image"]
    assert loaded.dtype == np.float32
    np.testing.assert_array_equal(loaded, pixels)
    assert load_samples(np.ones((2, 4), "int64"), [IDS])["ids"].dtype == np.int32


def test_several_inputs_bind_by_name_whatever_the_order():
    ids, vector = np.ones((2, 4), "int32"), np.zeros((2, 3), "float32")
    for data in (
        {"vector": vector, "ids": ids},
        [ids, vector],
        iter(
            [({"vector": vector[0], "ids": ids[0]}, 1), ({"ids": ids[1], "vector": vector[1]}, 0)]
        ),
        iter([[ids[0], vector[0]], [ids[1], vector[1]]]),
    ):
        loaded = load_samples(data, [IDS, VECTOR])
        np.testing.assert_array_equal(loaded["ids"], ids)
        np.testing.assert_array_equal(loaded["vector"], vector)


@pytest.mark.parametrize(
    ("data", "inputs", "message"),
    [
        (np.ones((4, 4, 1)), [IMAGE], r"'image'.*\(4, 4, 1\).*batch axis is missing"),
        (np.ones((2, 5, 4, 1)), [IMAGE], r"'image' must have shape \(None, 4, 4, 1\).*2, 5, 4"),
        (np.ones((0, 4, 4, 1)), [IMAGE], "no samples"),
        (iter([]), [IMAGE], "no samples"),
        ([], [IMAGE], "no samples"),
        (np.full((2, 4, 4, 1), np.nan), [IMAGE], "32 NaN or infinite.*sample 0"),
        (np.full((1, 4, 4, 1), 1e300), [IMAGE], "infinite"),
        (np.ones((2, 4)), [IDS], "must be int32.*float64"),
        (np.full((2, 4), 2**40), [IDS], "do not fit int32"),
        (np.array([["a"] * 4]), [IDS], "must be int32"),
        ({"picture": np.ones((2, 4, 4, 1))}, [IMAGE], "Missing: image; unknown: picture"),
        ({"ids": np.ones((2, 4), int), "vector": np.ones((3, 3))}, BOTH, "as many"),
        ([np.ones((2, 3)), np.zeros((2, 3))], [VECTOR, OTHER], "fits vector, other.*Pass a dict"),
        ([np.ones((2, 3)), np.ones((2, 4), int)], [IDS, VECTOR], "at 0.*fits vector.*dict"),
        (np.ones((2, 3)), [VECTOR, OTHER], r"2 input\(s\).*dict"),
        (iter([np.ones((4, 4, 1)), np.ones((5, 5, 1))]), [FREE], "one shape"),
    ],
)  # fmt: skip
def test_refuses(data, inputs, message):
    with pytest.raises(ValueError, match=f"(?s){message}"):
        load_samples(data, inputs)


def test_refuses_unknown_forms_and_files(tmp_path):
    with pytest.raises(TypeError, match=r"Received: 3 of type int"):
        load_samples(3, [IMAGE])
    with pytest.raises(ValueError, match="No such file"):
        load_samples(tmp_path / "nowhere.npz", [IMAGE])
    np.savez(tmp_path / "whole.npz", image=np.zeros((4, 4), "float32"))
    content = (tmp_path / "whole.npz").read_bytes()
    for name, broken in {
        "text": b"hello",
        "empty": b"",
        "half": content[: len(content) // 2],
    }.items():
        (tmp_path / f"{name}.npz").write_bytes(broken)
        with pytest.raises(ValueError, match=rf"{name}\.npz.*not an .npz"):
            load_samples(tmp_path / f"{name}.npz", [IMAGE])
    np.savez(tmp_path / "two.npz", a=np.ones(2), b=np.ones(2))
    with pytest.raises(ValueError, match=r"does not hold.*'image'.*a, b"):
        load_samples(tmp_path / "two.npz", [IMAGE])
    np.save(tmp_path / "object.npy", np.array([{}], object), allow_pickle=True)
    with pytest.raises(ValueError, match="plain numeric"):
        load_samples(tmp_path / "object.npy", [IMAGE])


def test_load_samples_calls_a_function_as_tflite_does():
    spec = InputSpec("x", (None, 3), "float32")
    rows = np.arange(12, dtype="float32").reshape(4, 1, 3)

    def representative_dataset(count=4):
        for row in rows[:count]:
            yield [row]

    np.testing.assert_array_equal(load_samples(representative_dataset, [spec])["x"], rows[:, 0])
    two = functools.partial(representative_dataset, 2)
    assert load_samples(two, [spec])["x"].shape == (2, 3)
    assert load_samples(lambda: rows[:, 0], [spec])["x"].shape == (4, 3)
    with pytest.raises(TypeError, match="of type function"):
        load_samples(lambda: representative_dataset, [spec])
