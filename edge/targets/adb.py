"""An Android phone as a target: the official `benchmark_model`, through the user's own adb."""

import contextlib
import os
import re
import secrets
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from ..arguments import check_each, check_path, check_text, refuse
from ..errors import ModelRefused
from ..system import tflite
from ..system.child import ChildFailure, exit_text
from .base import Measurement, Settings
from .benchmark_model import DELEGATES, last_words, read

TEMPORARY = "/data/local/tmp"
PREFIX = "tfcompress-"
ENDED = "benchmark_model ended with code"
HINTS = {
    "unauthorized": "unlock it, and allow USB debugging for this computer in the dialogue there",
    "offline": "unplug it and plug it in again, or run: adb reconnect",
    "no permissions": "this user may not open the USB device: see "
    "https://developer.android.com/studio/run/device",
}


@dataclass(frozen=True)
class Adb:
    """An Android phone, over `adb`.

    A phone has no Python, so that figures are those of `benchmark_model`, the program of TensorFlow
    Lite, and results name it in `measured_by`. It runs the file on random inputs, and nobody
    compares its outputs; its GPU delegate computes in float16 by default. The file and the program
    are sent to a folder in /data/local/tmp, which is removed afterwards. A folder that is left
    because the cable was pulled out is removed by a run on a later day. The `adb` command is the
    user's own.

    Delegates are `"xnnpack"`, the CPU; `"gpu"`; and `"nnapi"`, which Android 15 deprecates. A GPU
    or NNAPI that takes no op is a refusal: the latency would be that of the CPU.

    >>> from tfcompress import edge
    >>> target = edge.Adb("emulator-5554", benchmark_model="android_aarch64_benchmark_model")
    >>> target.name, target.delegates
    ('adb:emulator-5554', ('xnnpack', 'gpu', 'nnapi'))

    Args:
        serial: The phone's serial number, as `adb devices` shows it; None takes the only phone.
            Defaults to None.
        benchmark_model: Path of the program, built for the phone's processor. Prebuilt ones are
            linked from https://ai.google.dev/edge/litert/models/measurement. Defaults to
            `"benchmark_model"`, in the current folder.
        name: The name in results; empty takes "adb", with the serial number if one is given.
            Defaults to empty.
        options: More arguments for `adb`, such as `("-P", "5038")`. Defaults to none.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: `serial` is empty.
    """

    serial: str | None = None
    benchmark_model: str | os.PathLike[str] = "benchmark_model"
    name: str = ""
    options: Sequence[str] = ()
    delegates: ClassVar[tuple[str, ...]] = tuple(DELEGATES)

    def __post_init__(self) -> None:
        if self.serial is not None:
            check_text("serial", self.serial)
        check_path("benchmark_model", self.benchmark_model)
        if not isinstance(self.name, str):
            refuse("name", "a text", self.name, TypeError)
        check_each("options", self.options, str, "a text")
        object.__setattr__(self, "options", tuple(self.options))
        named = "adb" if self.serial is None else f"adb:{self.serial}"
        object.__setattr__(self, "name", self.name or named)

    def measure(self, path: Path, settings: Settings) -> Measurement:
        """Run `benchmark_model` on the phone, and read what it prints.

        Args:
            path: The .tflite file.
            settings: What to measure, and in how many seconds.

        Returns:
            The figures.

        Raises:
            ModelRefused: The program cannot run the file, died of it or took too long, or the
                delegate took no op.
            ModelFileError: The file is missing, corrupt, or no .tflite file.
            FileNotFoundError: There is no `adb` command, or no `benchmark_model`.
            ConnectionError: There is no phone, or several, or it cannot be used; the reason says
                what to do.
        """
        file = tflite.check(path)
        program = Path(self.benchmark_model)
        if not program.is_file():
            raise FileNotFoundError(
                f"There is no file {program}. Name TensorFlow Lite's benchmark_model for the "
                "phone's processor with benchmark_model= (--benchmark-model); prebuilt ones are "
                "linked from https://ai.google.dev/edge/litert/models/measurement"
            )
        if shutil.which("adb") is None:
            raise FileNotFoundError(
                "There is no adb command here. Install it, for example with: apt-get install adb"
            )
        serial = self._phone(settings.timeout)
        folder = f"{TEMPORARY}/{PREFIX}{secrets.token_hex(8)}"
        try:
            by = self._prepare(serial, folder, settings.timeout)
            self._push(serial, program, f"{folder}/benchmark_model", settings.timeout)
            self._push(serial, file, f"{folder}/model.tflite", settings.timeout)
            said = self._run(serial, folder, settings)
        except ChildFailure as failure:
            raise ModelRefused(f"{file}: {failure.reason}") from failure
        finally:
            # A phone that was unplugged cannot be asked any more.
            with contextlib.suppress(subprocess.TimeoutExpired):
                kill = f"[ -f {folder}/pid ] && kill -9 $(cat {folder}/pid); rm -rf {folder}"
                self._adb("-s", serial, "shell", kill, timeout=30.0)
        try:
            return read(said, settings.delegate, by)
        except ValueError as error:
            raise ModelRefused(f"{file}: {error}") from None

    def _adb(self, *words: str, timeout: float) -> tuple[int, str]:
        """Run adb; return its exit code, and what it and the command there said."""
        done = subprocess.run(
            ["adb", *self.options, *words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, timeout=timeout, check=False,
        )  # fmt: skip
        return done.returncode, done.stdout.decode("utf-8", "replace").replace("\r\n", "\n")

    def _asked(self, *words: str, timeout: float) -> str:
        """Run adb, which must not fail; return what it said."""
        try:
            code, said = self._adb(*words, timeout=timeout)
        except subprocess.TimeoutExpired:
            raise ConnectionError(f"adb did not answer within {timeout:g} s") from None
        if code:
            raise ConnectionError(f"adb failed: {last_words(said)}")
        return said

    def _phone(self, timeout: float) -> str:
        """Return the serial number of the phone, which must be ready."""
        said = self._asked("devices", timeout=timeout)
        states = dict(re.findall(r"^(\S+)\t(.+)$", said, re.M))
        listed = ", ".join(f"{serial} ({state})" for serial, state in states.items())
        if self.serial is not None and self.serial not in states:
            raise ConnectionError(
                f"There is no phone {self.serial}. adb devices lists: {listed or 'none'}"
            )
        if not states:
            raise ConnectionError(
                "No phone is connected. Turn on its developer options and USB debugging, plug it "
                "in, and see whether `adb devices` lists it"
            )
        ready = [serial for serial, state in states.items() if state == "device"]
        if self.serial is None and len(ready) > 1:
            raise ConnectionError(
                f"{len(ready)} phones are connected: {', '.join(ready)}. Say which one, as in "
                f"edge.Adb({ready[0]!r}) or --on adb:{ready[0]}"
            )
        chosen = self.serial or next(iter(ready or states))
        if (state := states[chosen]) != "device":
            hints = [hint for words, hint in HINTS.items() if state.startswith(words)]
            raise ConnectionError(": ".join([f"Phone {chosen} is {state!r}", *hints]))
        return chosen

    def _prepare(self, serial: str, folder: str, timeout: float) -> str:
        """Make the folder, remove those of earlier days, and return the phone's description."""
        names = ("ro.product.manufacturer", "ro.product.model", "ro.build.version.release",
                 "ro.product.cpu.abi")  # fmt: skip
        old = f"find {TEMPORARY} -maxdepth 1 -name '{PREFIX}*' -mtime +0 -exec rm -rf {{}} +"
        asked = "; ".join(f"getprop {name}" for name in names)
        said = self._asked(
            "-s", serial, "shell", f"{old} 2>/dev/null; mkdir {folder} && {{ {asked}; }}",
            timeout=timeout,
        )  # fmt: skip
        maker, model, release, processor = (*said.splitlines(), "?", "?", "?", "?")[:4]
        return f"benchmark_model on {maker} {model}, Android {release}, {processor}"

    def _push(self, serial: str, file: Path, there: str, timeout: float) -> None:
        try:
            self._asked("-s", serial, "push", str(file.resolve()), there, timeout=timeout)
        except ConnectionError as error:
            raise ConnectionError(f"{file.name} cannot be sent to the phone: {error}") from None

    def _run(self, serial: str, folder: str, settings: Settings) -> str:
        """Run the program to its end, and return what it said."""
        flags = (
            f"--graph={folder}/model.tflite", DELEGATES[settings.delegate][1],
            f"--num_threads={settings.threads or 1}", f"--num_runs={settings.min_runs}",
            f"--min_secs={settings.min_seconds:g}", f"--warmup_runs={settings.warmup + 1}",
            "--warmup_min_secs=0", f"--max_secs={settings.timeout:g}",
        )  # fmt: skip
        # Older phones do not pass the exit code on, so that it is printed. The process id is for
        # the clean-up: a process there outlives the adb here.
        command = (
            f"cd {folder} && chmod 755 benchmark_model && {{ ./benchmark_model {shlex.join(flags)} "
            f"2>&1 & echo $! > pid; wait $!; code=$?; rm pid; echo; echo {ENDED} $code; }}"
        )
        wait = settings.timeout + settings.min_seconds
        try:
            _, said = self._adb("-s", serial, "shell", command, timeout=wait)
        except subprocess.TimeoutExpired:
            said = f"benchmark_model did not end within {wait:g} s; it was killed"
            raise ChildFailure("timeout", said) from None
        said, ended, code = said.rpartition(ENDED)
        if not ended:
            raise ConnectionError(f"The connection to the phone broke: {last_words(code)}")
        ending = int(code)
        if ending in (126, 127):
            raise ChildFailure(
                "error",
                "the phone cannot start this benchmark_model. Is it built for Android and the "
                f"processor there? It said: {last_words(said)}",
            )
        if ending > 128:
            raise ChildFailure(
                "crashed", f"benchmark_model {exit_text(128 - ending)}: {last_words(said)}"
            )
        if ending:
            raise ChildFailure("refused", f"benchmark_model failed: {last_words(said)}")
        return said
