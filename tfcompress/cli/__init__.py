"""The command line: `tfcompress demo | compress | convert | inspect | verify | bench | ...`.

Exit codes: 0 fine, 1 the check failed, 2 bad usage or bad input.
"""

import click

from .compression import compress
from .conversion import convert, quantize
from .devices import profile, targets
from .errors import Commands
from .files import bench, c_array, demo, sparsify, split, verify
from .generation import generate
from .inspection import check_sparse, inspect
from .judging import compare, evaluate
from .models import channels, low_rank, prune_channels, summary
from .options import leave_current_folder
from .quantization import equalize, quantize_aware, report_qat

__all__ = ["main"]


@click.group(
    cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(package_name="tfcompress")
def main() -> None:
    """Make Keras 3 models small and fast on the device, and prove it.

    Exit codes: 0 fine, 1 the check failed, 2 bad usage or bad input.
    """
    leave_current_folder()


for command in (
    demo, compress, convert, sparsify, split, c_array, inspect, check_sparse, verify,
    compare, evaluate, bench, profile, targets, summary,
    channels, prune_channels, low_rank, equalize, quantize, quantize_aware, report_qat,
    generate,
):  # fmt: skip
    main.add_command(command)
