"""Tiny models of KerasHub's families, with random weights, and samples for them."""

import keras
import numpy as np

from tests.support.helpers import need

VOCABULARY, LENGTH, SAMPLES = 40, 8, 8
# A dynamic-range file has int8 weights from 1,024 elements on, as 32 x 32.
ENCODER = {
    "vocabulary_size": VOCABULARY,
    "num_layers": 2,
    "num_heads": 4,
    "hidden_dim": 32,
    "intermediate_dim": 64,
    "max_sequence_length": LENGTH,
}
DECODER = {
    "vocabulary_size": VOCABULARY,
    "num_layers": 2,
    "num_query_heads": 4,
    "num_key_value_heads": 2,
    "hidden_dim": 32,
    "intermediate_dim": 64,
}
ONE_LAYER = {**ENCODER, "num_layers": 1}
IMAGES = {"image_shape": (16, 16, 3)}
VISION = {"patch_size": 8, "num_layers": 2, "num_heads": 4, "hidden_dim": 32, **IMAGES}
SWIN = {"embed_dim": 16, "depths": (2, 1), "num_heads": (2, 4), "window_size": 2, "patch_size": 2}
MIX = {
    "image_shape": (32, 32, 3),
    "num_layers": 4,
    "hidden_dims": [4, 8, 16, 32],
    "layerwise_depths": [1] * 4,
    "layerwise_num_heads": [1, 2, 2, 4],
    "layerwise_sr_ratios": [2, 1, 1, 1],
    "layerwise_patch_sizes": [7, 3, 3, 3],
    "layerwise_strides": [4, 2, 2, 1],
}
MOBILE_3 = {
    "stackwise_expansion": [[8], [16]],
    "stackwise_num_blocks": [1, 1],
    "stackwise_num_filters": [[8], [8]],
    "stackwise_kernel_size": [[3], [5]],
    "stackwise_num_strides": [[2], [1]],
    "stackwise_se_ratio": [[None], [0.25]],
    "stackwise_activation": [["relu"], ["hard_swish"]],
    "stackwise_padding": [[1], [2]],
    "output_num_filters": 16,
    "depthwise_filters": 8,
    "depthwise_stride": 1,
    "depthwise_residual": False,
    "last_layer_filter": 16,
    "squeeze_and_excite": 0.5,
    "input_num_filters": 8,
}
MOBILE_5 = {  # its second stage has the blocks of MobileNet V4
    "stackwise_block_types": [["er"], ["uir", "mqa"]],
    "stackwise_num_blocks": [1, 2],
    "stackwise_num_filters": [[8], [16, 16]],
    "stackwise_strides": [[2], [2, 1]],
    "stackwise_act_layers": [["relu"], ["relu", "relu"]],
    "stackwise_exp_ratios": [[2.0], [2.0, 1.0]],
    "stackwise_se_ratios": [[0.0], [0.0, 0.0]],
    "stackwise_dw_kernel_sizes": [[0], [5, 3]],
    "stackwise_dw_start_kernel_sizes": [[0], [3, 0]],
    "stackwise_dw_end_kernel_sizes": [[0], [0, 0]],
    "stackwise_exp_kernel_sizes": [[3], [0, 0]],
    "stackwise_pw_kernel_sizes": [[1], [0, 0]],
    "stackwise_num_heads": [[0], [0, 4]],
    "stackwise_key_dims": [[0], [0, 4]],
    "stackwise_value_dims": [[0], [0, 4]],
    "stackwise_kv_strides": [[0], [0, 1]],
    "stackwise_use_cpe": [[False], [False, False]],
    "use_msfa": False,
    "stem_size": 8,
    "num_features": 32,
}

FAMILIES = {
    "BERT": lambda hub: hub.BertBackbone(**ENCODER),
    "GPT-2": lambda hub: hub.GPT2Backbone(**ENCODER),
    "ViT": lambda hub: hub.ViTBackbone(mlp_dim=64, **VISION),
    "DistilBERT": lambda hub: hub.DistilBertBackbone(**ENCODER),
    "RoBERTa": lambda hub: hub.RobertaBackbone(**ENCODER),
    "ALBERT": lambda hub: hub.AlbertBackbone(**ENCODER, embedding_dim=8),
    "DeBERTa": lambda hub: hub.DebertaV3Backbone(**ENCODER, bucket_size=4),
    "FNet": lambda hub: hub.FNetBackbone(**{k: v for k, v in ENCODER.items() if k != "num_heads"}),
    "GPT-2 language model": lambda hub: hub.GPT2CausalLM(hub.GPT2Backbone(**ENCODER)),
    "OPT": lambda hub: hub.OPTBackbone(**ENCODER),
    "Gemma": lambda hub: hub.GemmaBackbone(**DECODER, head_dim=8),
    "Gemma 3": lambda hub: hub.Gemma3Backbone(**DECODER, head_dim=8, image_size=16),
    "Llama": lambda hub: hub.LlamaBackbone(**DECODER),
    "Mistral": lambda hub: hub.MistralBackbone(**DECODER, sliding_window=4),
    "Qwen 2": lambda hub: hub.QwenBackbone(**DECODER),
    "Qwen 3": lambda hub: hub.Qwen3Backbone(**DECODER, head_dim=8),
    "Phi-3": lambda hub: hub.Phi3Backbone(**DECODER),
    "T5": lambda hub: hub.T5Backbone(
        **{k: v for k, v in ONE_LAYER.items() if k != "max_sequence_length"}
    ),
    "BART": lambda hub: hub.BartBackbone(**ONE_LAYER),
    "Whisper": lambda hub: hub.WhisperBackbone(
        **{k: v for k, v in ONE_LAYER.items() if k != "max_sequence_length"},
        num_mels=4,
        max_encoder_sequence_length=2 * LENGTH,
        max_decoder_sequence_length=LENGTH,
    ),
    "DeiT": lambda hub: hub.DeiTBackbone(intermediate_dim=64, **VISION),
    "Swin": lambda hub: hub.SwinTransformerBackbone(**SWIN, **IMAGES),
    "SegFormer": lambda hub: hub.SegFormerBackbone(
        hub.MiTBackbone(**MIX, max_drop_path_rate=0.1), 8
    ),
    "MobileNet V3": lambda hub: hub.MobileNetBackbone(**MOBILE_3, **IMAGES),
    "MobileNet V5": lambda hub: hub.MobileNetV5Backbone(**MOBILE_5, **IMAGES),
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
    for variable in model.non_trainable_variables:
        if variable.name == "moving_mean":
            variable.assign(rng.normal(size=variable.shape) * 0.1)
    return model, {key: _samples(key, x, rng) for key, x in inputs.items()}


def _samples(name, tensor, rng):
    shape = (SAMPLES, *tensor.shape[1:])
    if name.endswith("padding_mask"):
        mask = np.ones(shape, "int32")
        mask[SAMPLES // 2 :, -2:] = 0
        return mask
    if tensor.dtype == "float32":
        return rng.normal(size=shape).astype("float32")
    return rng.integers(0, 2 if name == "segment_ids" else VOCABULARY, shape).astype("int32")
