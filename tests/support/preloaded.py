"""What the children of `warm_children` are born with. Imported where those are forked off alone."""

import os
import sys

os.environ |= {"CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "2"}
sys.modules["keras"] = None  # type: ignore[assignment]  # as in converters/jobs/__main__.py

import tensorflow  # noqa: E402, F401
from ai_edge_litert import interpreter, schema_py_generated  # noqa: E402, F401
