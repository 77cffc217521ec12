import keras
import numpy as np
import pytest
from keras import layers

from tests.zoo.language_models import ROOM, by_hand
from tfcompress import converters, edge

TOKENS = np.random.default_rng(3).integers(0, 50, (2, ROOM)).astype("int32")


@pytest.fixture(scope="module")
def model():
    return by_hand()


def convert(model, folder, **options):
    given = {"max_tokens": ROOM, "prefill": [8, 4], **options}
    return converters.convert_generator(model, folder / "lm.tflite", **given)


def test_a_model_written_by_hand_becomes_a_file_of_litert_lm(model, tmp_path):
    file = convert(model, tmp_path)
    found = converters.inspect(file)
    keys = {signature.key: signature for signature in found.signatures}
    assert set(keys) == {"prefill_4", "prefill_8", "decode"}
    caches = {f"kv_cache_{part}_{layer}" for part in "kv" for layer in range(2)}
    for key, signature in keys.items():
        assert set(signature.inputs) == {"tokens", "input_pos", *caches}
        assert set(signature.outputs) == caches | ({"logits"} if key == "decode" else set())
        shapes = {name: found.tensors[place].shape for name, place in signature.inputs.items()}
        length = {"prefill_4": 4, "prefill_8": 8, "decode": 1}[key]
        assert (shapes["tokens"], shapes["input_pos"]) == ((1, length), (length,))
        assert {shapes[name] for name in caches} == {(1, 2, ROOM, 4)}
    # All signatures share the weights: 5,146 of them.
    assert found.constant_bytes < 4 * sum(w.shape.num_elements() for w in model.weights) * 1.2
    assert {op for op in found.ops if "SLICE" in op} <= {"DYNAMIC_UPDATE_SLICE", "STRIDED_SLICE"}
    assert [error.name for error in file.outputs] == ["decode", "prefill"]
    assert min(error.snr_db for error in file.outputs) > 100

    # float32 in another order: 1e-5 of logits of about 1.
    verified = converters.verify_generator(model, file, TOKENS)
    verified.raise_if_above(max_error=1e-5, top1_below=1)
    assert verified["decode"].channel_r2 == ()
    other = by_hand()
    other.head.bias.assign_add(np.ones(50))
    with pytest.raises(converters.VerificationError, match="'prefill'"):
        converters.verify_generator(other, file, TOKENS).raise_if_above(max_error=1e-2)


@pytest.mark.parametrize(
    ("precision", "snr"),
    [
        (converters.WeightOnly(bits=8), 30),
        pytest.param(converters.Float16(), 55, marks=pytest.mark.slow("converts")),
        pytest.param(converters.DynamicInt8(), 30, marks=pytest.mark.slow("converts")),
        pytest.param(
            converters.WeightOnly(bits=4, block=8, activations="float32"),
            15,
            marks=pytest.mark.slow("converts, and compares on four engines"),
        ),
    ],
    ids=lambda value: getattr(value, "name", None),
)
@pytest.mark.filterwarnings("ignore:.*tflite-runtime 2.14")
def test_weights_are_stored_in_fewer_bits_once_for_all_signatures(precision, snr, tmp_path):
    keras.utils.set_random_seed(0)
    model = by_hand(width=64)
    file = convert(model, tmp_path, precision=precision)
    assert min(error.snr_db for error in file.outputs) > snr
    weights = model.count_params()
    share = {"float16": 2, "dynamic_int8": 4, "weight_only": 1}[precision.name]
    assert converters.inspect(file).constant_bytes < share * weights * 1.4
    # Decode and prefill agree: both round alike.
    generator = edge.Generator(file)
    each = generator.logits(TOKENS[0])[-1]
    assert generator.logits(TOKENS[0], last=True) == pytest.approx(each, abs=0.1)


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"max_tokens": 1}, ValueError, "`max_tokens` must be an integer from 2"),
        ({"prefill": [17]}, ValueError, r"`prefill\[0\]` must be an integer from 2 to 16"),
        ({"prefill": [4, 4]}, ValueError, "one or more different integers from 2 to 16"),
        ({"precision": converters.Int8()}, converters.ConversionError, "through a cache. Use Fl"),
        (
            {"precision": converters.Int4Weights(calibration=TOKENS)},
            converters.ConversionError,
            "Int4Weights rounds activations",
        ),
    ],
)
def test_what_cannot_be_converted_is_refused(options, kind, message, model, tmp_path):
    with pytest.raises(kind, match=message):
        convert(model, tmp_path, **options)
    assert not list(tmp_path.iterdir())


def test_a_model_in_half_precision_is_refused(tmp_path):
    half = keras.Sequential([keras.Input((4,)), layers.Dense(2, dtype="bfloat16", name="d")])
    with pytest.raises(converters.ConversionError, match=r"'d' .* in bfloat16.*dtype='float"):
        convert(half, tmp_path)


def test_a_step_that_forgets_the_cache_is_found(tmp_path):
    class Forgets(type(by_hand())):
        def step(self, tokens, positions, caches):
            logits, updated = super().step(tokens, positions, caches)
            return logits, [(old[0], new[1]) for old, new in zip(caches, updated, strict=True)]

    model = Forgets(name="forgets")
    model(np.zeros((1, 4), "int32"))
    with pytest.raises(converters.ConversionError, match="does not compute what the model does"):
        convert(model, tmp_path)
    assert not list(tmp_path.iterdir())
