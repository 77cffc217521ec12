"""Steps: one file adapts one method to the planner; the methods know nothing of it."""

from . import channels as channels
from . import dynamic_int8 as dynamic_int8
from . import equalized_int8 as equalized_int8
from . import float16 as float16
from . import int4_weights as int4_weights
from . import int8 as int8
from . import int8_weights as int8_weights
from . import low_rank as low_rank
from . import qat as qat
from . import zeros as zeros
