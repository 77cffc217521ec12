"""Targets by the names that people type, and which of them can be used."""

import os

from ..arguments import check_seconds, check_text
from ..engines.base import Availability
from ..errors import DelegateMismatch, DelegateUnavailable, ModelRefused
from ..system.child import ChildFailure
from ..system.tflite import PROBE
from .adb import Adb
from .answers import parse
from .base import TARGETS, AnyTarget, Estimator, Measurer, Settings
from .browser import Browser
from .ethos_u import ACCELERATORS, EthosU
from .ssh import Ssh

PathLike = str | os.PathLike[str]


def target_named(
    text: str, python: str = "python3", benchmark_model: PathLike = "benchmark_model"
) -> AnyTarget:
    """Return the target of a name: a registered one, or such as `ssh:user@machine`, `adb`.

    >>> from tfcompress.edge.targets.names import target_named
    >>> target_named("local")
    Local(name='local', emulated=False)
    >>> target_named("ssh:pi@raspberrypi").host
    'pi@raspberrypi'

    Args:
        text: The name.
        python: The Python of a machine that is reached over SSH. Defaults to `"python3"`.
        benchmark_model: Path of the program that measures on a phone. Defaults to
            `"benchmark_model"`.

    Returns:
        The target.

    Raises:
        TypeError: The name is no text.
        ValueError: There is no such target.
    """
    check_text("target", text)
    if text.startswith("ssh:"):
        return Ssh(text.removeprefix("ssh:"), python)
    if text == "adb" or text.startswith("adb:"):
        return Adb(text.partition(":")[2] or None, benchmark_model)
    if text.startswith("browser:"):
        return Browser(text.removeprefix("browser:"))
    if text in ACCELERATORS:
        return EthosU(text)
    if text not in TARGETS.names():
        names = ", ".join(
            (*TARGETS.names(), "ssh:USER@HOST", "adb[:SERIAL]", "browser:FOLDER", *ACCELERATORS)
        )
        raise ValueError(f"`target` must be one of {names}. Received: target={text!r}")
    return TARGETS.get(text)


def available(target: AnyTarget, timeout: float = 60.0) -> Availability:
    """Find out whether a target can be used, by running or estimating a small file.

    >>> from tfcompress import edge
    >>> from tfcompress.edge.targets.names import available
    >>> available(edge.Local()).available
    True

    Args:
        target: The target.
        timeout: Seconds that it gets. Defaults to 60.

    Returns:
        The availability: what the target is, or why it cannot be used and what to install.
    """
    timeout = check_seconds("timeout", timeout)
    name = target.name
    try:
        if isinstance(target, Estimator):
            return Availability(name, True, target.estimate(PROBE, timeout).by)
        if isinstance(target, Measurer):
            settings = Settings("xnnpack", min_runs=1, min_seconds=0.0, timeout=timeout)
            return Availability(name, True, target.measure(PROBE, settings).by)
        with target.session([]) as session:
            answer = session.child.request("probe", timeout, delegate="xnnpack")
            found = parse(Availability, "probe", answer)
        return Availability(name, found.available, found.reason)
    except ModelRefused as error:
        # A program that judged the file works; one that died has a cause.
        works = error.__cause__ is None
        said = "works here; it takes no float, as the small file that was tried" if works else error
        return Availability(name, works, str(said))
    except (ChildFailure, DelegateMismatch, DelegateUnavailable, ImportError, OSError) as error:
        return Availability(name, False, str(error))
