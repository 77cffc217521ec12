"""Quantization-aware training: fake quantization where TFLite will have int8 tensors."""
