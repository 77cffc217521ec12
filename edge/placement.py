"""Which delegates a target has, and where they run the ops of a file."""

import os

from .engines.base import DELEGATES, Availability, Placement
from .errors import raised_by
from .system import tflite
from .system.child import ChildFailure
from .targets.answers import parse
from .targets.base import Target
from .targets.local import LOCAL


def delegates(timeout: float = 60.0, *, target: Target = LOCAL) -> dict[str, Availability]:
    """Find out which delegates can be used on a target, by running a small file on each.

    Each delegate is tried in a process of its own, since the attempt kills the process on some
    machines.

    >>> from tfcompress import edge
    >>> edge.delegates()["xnnpack"].available
    True

    Args:
        timeout: Seconds that each delegate gets. Defaults to 60.
        target: The machine to try them on. Defaults to `Local()`, this one.

    Returns:
        Availability by name of the delegate: `"xnnpack"`, `"reference"` and `"gpu"`.

    Raises:
        OSError: The target cannot be reached.
    """
    found: dict[str, Availability] = {}
    for name in DELEGATES.names():
        try:
            with target.session([]) as session:
                answer = session.child.request("probe", timeout, delegate=name)
                found[name] = parse(Availability, "probe", answer)
        except ChildFailure as failure:
            said = failure.reason if failure.status == "refused" else str(failure)
            found[name] = Availability(name, False, said)
    return found


def placement(
    path: str | os.PathLike[str],
    delegate: str = "xnnpack",
    threads: int | None = None,
    timeout: float = 60.0,
    *,
    target: Target = LOCAL,
) -> Placement:
    """Find out which ops of a file a delegate takes, and which stay with the built-in kernels.

    >>> from tfcompress import edge
    >>> from tfcompress.edge.system.tflite import PROBE
    >>> print(edge.placement(PROBE))
    XNNPACK

    Args:
        path: The .tflite file.
        delegate: `"xnnpack"`, `"reference"` or `"gpu"`. Defaults to `"xnnpack"`.
        threads: Number of CPU threads; None takes the runtime's default, which is one. Defaults to
            None.
        timeout: Seconds that the process gets. Defaults to 60.
        target: The machine to ask. Defaults to `Local()`, this one.

    Returns:
        The placement. If a GPU does not take every op, LiteRT names the ops that it refuses but not
        the others that stay on the CPU with them, so `ops_delegated` is None.

    Raises:
        ModelFileError: The file is missing, corrupt, or no .tflite file.
        ModelRefused: The delegate cannot run the file, or the process died while it tried.
        DelegateUnavailable: The target has no such delegate.
        ValueError: There is no delegate of this name.
        OSError: The target cannot be reached.
    """
    DELEGATES.get(delegate)
    file = tflite.check(path)
    try:
        with target.session([file]) as session:
            [there] = session.paths
            answer = session.child.request(
                "placement", timeout, path=there, delegate=delegate, threads=threads
            )
            return parse(Placement, "placement", answer)
    except ChildFailure as failure:
        raise raised_by(failure, file) from None
