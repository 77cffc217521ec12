"""Make Keras 3 models small and fast on the device, and prove it.

`tfcompress` itself makes a model smaller while it trains, `tfcompress.converters` turns it into a
checked .tflite file, `tfcompress.edge` runs and measures that file. The last needs neither Keras
nor TensorFlow.
"""

import os
from importlib.util import find_spec

from tfcompress.edge.system.console import captured

from . import edge

__all__ = [
    "ChannelGroup",
    "ChannelGroups",
    "Clustering",
    "Comparison",
    "Distiller",
    "FakeQuant",
    "FreezeBatchNorm",
    "FreezeRanges",
    "GroupLasso",
    "Int8Scheme",
    "KeepClusters",
    "KeepZeros",
    "LowRankPlan",
    "Prune",
    "QatReport",
    "QuantizeWrapper",
    "SmoothL0",
    "Summary",
    "budgets",
    "calibrate",
    "channel_groups",
    "cluster_weights",
    "converters",
    "distill",
    "edge",
    "factorize",
    "importance",
    "low_rank_plan",
    "masks",
    "prune_channels",
    "prune_channels_gradually",
    "prune_weights",
    "qat_report",
    "quantize_aware",
    "regularize",
    "schedules",
    "self_distiller",
    "separable_net",
    "strip",
    "summary",
]

if find_spec("keras") is not None and find_spec("tensorflow") is not None:
    # TensorFlow greets at length. Who sets its log level wants to hear it.
    with captured(enabled="TF_CPP_MIN_LOG_LEVEL" not in os.environ):
        import keras as _keras  # noqa: F401

    # At once, not on first use: Keras loads a file only if its classes are registered before.
    from tfcompress.channels.dependency.build import channel_groups
    from tfcompress.channels.groups import ChannelGroup, ChannelGroups
    from tfcompress.channels.prune import prune_channels, prune_channels_gradually
    from tfcompress.cost.comparison import Comparison
    from tfcompress.cost.summary import Summary, summary
    from tfcompress.distill.distiller import Distiller, self_distiller
    from tfcompress.low_rank.factorize import factorize
    from tfcompress.low_rank.plan import LowRankPlan
    from tfcompress.low_rank.planning import low_rank_plan
    from tfcompress.models.separable import separable_net
    from tfcompress.pruning.prune import KeepZeros, Prune, prune_weights
    from tfcompress.quantization.calibrate import FreezeBatchNorm, FreezeRanges, calibrate
    from tfcompress.quantization.fake_quant import FakeQuant
    from tfcompress.quantization.quantize import quantize_aware
    from tfcompress.quantization.report import QatReport, qat_report
    from tfcompress.quantization.scheme import Int8Scheme
    from tfcompress.quantization.strip import strip
    from tfcompress.quantization.wrapper import QuantizeWrapper
    from tfcompress.regularizers.group_lasso import GroupLasso
    from tfcompress.regularizers.regularize import regularize
    from tfcompress.regularizers.smooth_l0 import SmoothL0

    from . import converters, distill
    from .channels import importance
    from .clustering import Clustering, KeepClusters, cluster_weights
    from .cost import budgets
    from .pruning import masks, schedules
else:

    def __getattr__(name: str) -> object:
        if name in __all__:
            raise ImportError(
                f"tfcompress.{name} needs Keras and TensorFlow. "
                "Install them with: pip install 'tfcompress[tensorflow]'"
            )
        raise AttributeError(f"module 'tfcompress' has no attribute {name!r}")
