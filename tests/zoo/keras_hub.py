"""Tiny models of KerasHub's families, with random weights, and samples for them."""

import keras
import numpy as np

from tests.support.helpers import need

VOCABULARY, LENGTH, SAMPLES = 40, 8, 8
ENCODER = {
    "vocabulary_size": VOCABULARY,
    "num_layers": 2,
    "num_heads": 4,
    "hidden_dim": 16,
    "intermediate_dim": 32,
    "max_sequence_length": LENGTH,
}
DECODER = {
    "vocabulary_size": VOCABULARY,
    "num_layers": 2,
    "num_query_heads": 4,
    "num_key_value_heads": 2,
    "hidden_dim": 16,
    "intermediate_dim": 32,
}
VISION = {"patch_size": 8, "num_layers": 2, "num_heads": 4, "hidden_dim": 16}

FAMILIES = {
    "BERT": lambda hub: hub.BertBackbone(**ENCODER),
    "GPT-2": lambda hub: hub.GPT2Backbone(**ENCODER),
    "ViT": lambda hub: hub.ViTBackbone(image_shape=(16, 16, 3), mlp_dim=32, **VISION),
    "DistilBERT": lambda hub: hub.DistilBertBackbone(**ENCODER),
    "RoBERTa": lambda hub: hub.RobertaBackbone(**ENCODER),
    "ALBERT": lambda hub: hub.AlbertBackbone(**ENCODER, embedding_dim=8),
    "GPT-2 language model": lambda hub: hub.GPT2CausalLM(hub.GPT2Backbone(**ENCODER)),
    "Gemma": lambda hub: hub.GemmaBackbone(**DECODER, head_dim=4),
    "Llama": lambda hub: hub.LlamaBackbone(**DECODER),
    "Mistral": lambda hub: hub.MistralBackbone(**DECODER, sliding_window=4),
    "Qwen 3": lambda hub: hub.Qwen3Backbone(**DECODER, head_dim=4),
}


def family(name):
    """Return a model of fixed length, whose weights and biases are random, and samples by input."""
    try:
        import keras_hub
    except ImportError:
        need(
            False, "pip install -c constraints.txt -e '.[test]' brings keras-hub, which is missing"
        )
    free = FAMILIES[name](keras_hub.models)
    flat = not isinstance(free.input, dict)
    named = {"image": free.input} if flat else free.input
    inputs = {
        key: keras.Input([LENGTH if n is None else n for n in x.shape[1:]], dtype=x.dtype, name=key)
        for key, x in named.items()
    }
    model = keras.Model(inputs, free(inputs["image"] if flat else inputs), name=name.split()[0])
    rng = np.random.default_rng(0)
    for variable in model.trainable_variables:
        variable.assign_add(rng.normal(size=variable.shape) * 0.1)
    return model, {key: _samples(key, x, rng) for key, x in inputs.items()}


def _samples(name, tensor, rng):
    shape = (SAMPLES, *tensor.shape[1:])
    if name == "padding_mask":
        mask = np.ones(shape, "int32")
        mask[SAMPLES // 2 :, -2:] = 0
        return mask
    if name == "image":
        return rng.normal(size=shape).astype("float32")
    return rng.integers(0, 2 if name == "segment_ids" else VOCABULARY, shape).astype("int32")
