"""Graphs made table by table: quick, and in forms that the converter does not write."""

import math

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tfcompress.converters.passes.flatbuffer import pack
from tfcompress.converters.passes.graph import Graph


class Net:
    """A chain of ops, each with weights, in one precision."""

    def __init__(self, kind, seed, shape, free_batch=False):
        self.kind = kind
        self.rng = np.random.default_rng(seed)
        self.model = schema.ModelT(
            version=3,
            operatorCodes=[],
            subgraphs=[schema.SubGraphT(tensors=[], operators=[])],
            buffers=[schema.BufferT()],
        )
        self.graph = Graph(self.model, 0)
        self.free = free_batch
        self.last = self.activation(shape)
        self.graph.tables.inputs = np.array([self.last], np.int32)

    def tensor(self, name, array=None, scale=None, zero_point=0, axis=0):
        index = self.graph.add(array=array)
        self.graph[index].name = f"{name}{index}".encode()
        if scale is not None:
            scale = np.atleast_1d(np.asarray(scale, np.float32))
            self.graph[index].quantization = schema.QuantizationParametersT(
                scale=scale,
                zeroPoint=np.full(len(scale), zero_point, np.int64),
                quantizedDimension=axis,
            )
        return index

    def activation(self, shape):
        int8 = self.kind == "int8"
        index = self.tensor(
            "activation",
            scale=self.rng.uniform(0.02, 0.1) if int8 else None,
            zero_point=int(self.rng.integers(-30, 30)),
        )
        tensor = self.graph[index]
        tensor.type = schema.TensorType.INT8 if int8 else schema.TensorType.FLOAT32
        tensor.shape = np.array(shape, np.int32)
        if self.free:
            tensor.shapeSignature = np.array([-1, *shape[1:]], np.int32)
        return index

    @property
    def shape(self):
        return [int(size) for size in self.graph[self.last].shape]

    def op(self, name, inputs, output, options=None, version=1):
        node = schema.OperatorT(
            opcodeIndex=self.graph.code(name, version),
            inputs=np.array(inputs, np.int32),
            outputs=np.array([output], np.int32),
        )
        if options is not None:
            kind = type(options).__name__.removesuffix("T")
            node.builtinOptionsType = getattr(schema.BuiltinOptions, kind)
            node.builtinOptions = options
        self.graph.tables.operators.append(node)

    def zeros(self, shape, pattern):
        """A mask: (share of zeros, axis of blocks, size of blocks)."""
        share, axis, block = pattern
        axis %= len(shape)
        if shape[axis] % block:
            block = 1
        small = [n // block if a == axis else n for a, n in enumerate(shape)]
        return np.repeat(self.rng.random(small) >= share, block, axis)

    def constants(self, shape, axis, pattern, bias):
        """Weights and a bias, as the precision stores them."""
        mask = self.zeros(shape, pattern)
        outputs = shape[axis]
        if self.kind == "int8":
            weights = (self.rng.integers(-127, 128, shape) * mask).astype(np.int8)
            scale = self.rng.uniform(0.001, 0.01, outputs)
            index = self.tensor("weights", weights, scale, axis=axis)
            if not bias:
                return [index]
            values = self.rng.integers(-1000, 1000, outputs).astype(np.int32)
            source = self.graph[self.last].quantization.scale[0]
            return [index, self.tensor("bias", values, source * scale.astype(np.float32))]
        dtype = np.dtype(self.kind)
        values = [self.rng.normal(size=shape) * mask, self.rng.normal(size=outputs)]
        indices = []
        for name, value in zip(("weights", "bias"), values, strict=True):
            index = self.tensor(name, value.astype(dtype))
            if self.kind == "float16":
                wide = self.tensor(f"{name}_wide")
                self.graph[wide].shape = self.graph[index].shape
                self.op("DEQUANTIZE", [index], wide, version=3)
                index = wide
            indices.append(index)
        return indices

    def convolution(self, filters, size, stride, same, relu, pattern, weights=None):
        n, height, width, channels = self.shape
        if min(height, width) < size:
            size = 1
        weights = weights or self.constants([filters, size, size, channels], 0, pattern, True)
        out = [math.ceil(d / stride) if same else (d - size) // stride + 1 for d in (height, width)]
        target = self.activation([n, *out, filters])
        options = schema.Conv2DOptionsT(
            padding=0 if same else 1, strideH=stride, strideW=stride,
            fusedActivationFunction=relu, dilationHFactor=1, dilationWFactor=1,
        )  # fmt: skip
        self.op("CONV_2D", [self.last, *weights], target, options, 3)
        self.last = target
        return weights

    def depthwise(self, size, stride, same, relu, pattern):
        n, height, width, channels = self.shape
        if min(height, width) < size:
            size = 1
        weights = self.constants([1, size, size, channels], 3, pattern, True)
        out = [math.ceil(d / stride) if same else (d - size) // stride + 1 for d in (height, width)]
        target = self.activation([n, *out, channels])
        options = schema.DepthwiseConv2DOptionsT(
            padding=0 if same else 1, strideH=stride, strideW=stride, depthMultiplier=1,
            fusedActivationFunction=relu, dilationHFactor=1, dilationWFactor=1,
        )  # fmt: skip
        self.op("DEPTHWISE_CONV_2D", [self.last, *weights], target, options, 3)
        self.last = target

    def fully_connected(self, units, relu, bias, pattern):
        weights = self.constants([units, self.shape[-1]], 0, pattern, bias)
        target = self.activation([*self.shape[:-1], units])
        options = schema.FullyConnectedOptionsT(
            fusedActivationFunction=relu, keepNumDims=len(self.shape) > 2
        )
        if self.kind == "float16" or len(weights) > 1:
            inputs = [self.last, *weights]
        else:
            inputs = [self.last, *weights, -1]
        self.op("FULLY_CONNECTED", inputs, target, options, 4)
        self.last = target

    def content(self):
        self.graph.tables.outputs = np.array([self.last], np.int32)
        return pack(self.model)
