"""The study: what was tried and what is being tried, shared by all workers, kept across kills.

It is a study of Optuna, in a journal file or in a database. A trial that runs is leased by its
worker, which renews the lease while it lives. A lease of a dead worker runs out, and others do the
trial. Optuna's own heartbeat (release 5.0) leaves such trials running, in journals and databases.
"""

from __future__ import annotations

import contextlib
import functools
import os
import socket
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from .database import open_database
from .recipe import Outcome, Recipe
from .stops import CannotGoOn, check_disk

if TYPE_CHECKING:
    import optuna

__all__ = ["Study", "quiet"]

_Method = TypeVar("_Method", bound=Callable[..., Any])

_LEASE = 60.0
"""Seconds. Clocks of machines that share a study must agree to a fraction of this."""
_RENEW = 15.0
_TRIES = 5
"""A recipe that so many workers died of is dropped."""


def _optuna() -> Any:
    try:
        # tqdm, which it imports, warns in notebooks without widgets.
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "IProgress not found")
            import optuna
    except ModuleNotFoundError as error:
        if error.name != "optuna":
            raise
        raise ImportError(
            "compress keeps its trials with Optuna, which is not installed. Install it with: "
            "pip install 'tfcompress[planner]'"
        ) from error
    return optuna


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep Optuna from logging each trial, in the `with` block."""
    logging = _optuna().logging
    before = logging.get_verbosity()
    logging.set_verbosity(logging.WARNING)
    try:
        yield
    finally:
        logging.set_verbosity(before)


def _keeping(method: _Method) -> _Method:
    """Make a method say so if the study can be neither read nor written any more."""

    @functools.wraps(method)
    def wrapped(*arguments: Any, **options: Any) -> Any:
        try:
            return method(*arguments, **options)
        except Exception as error:
            check_disk(error)
            if not isinstance(error, (OSError, _optuna().exceptions.StorageInternalError)):
                raise
            said = str(error.__cause__ or error).strip().splitlines() or [type(error).__name__]
            raise CannotGoOn(f"the study cannot be kept ({said[0]}): look after it") from error

    return cast(_Method, wrapped)


class Study:
    """Trials of one model on its data.

    Args:
        name: A digest of the model and of the data: another model in the same storage has a study
            of its own.
        folder: Folder for a journal file; None keeps all in memory.
        database: URL of a database instead, as SQLAlchemy takes it. Defaults to None.

    Attributes:
        known: The outcomes that were read last.

    Raises:
        ValueError: The URL is none.
        ImportError: Optuna is not installed, or the driver of the database.
        ConnectionError: The database does not answer, or refuses.
    """

    def __init__(self, name: str, folder: Path | None, database: str | None = None) -> None:
        optuna = _optuna()
        self.known: list[Outcome] = []
        self._states = optuna.trial.TrialState
        storage: Any = None
        if database is not None:
            storage = open_database(database)
        elif folder is not None:
            backend = optuna.storages.journal.JournalFileBackend(str(folder / "study.journal"))
            storage = optuna.storages.JournalStorage(backend)
        self._study = optuna.create_study(
            study_name=f"tfcompress-{name}",
            storage=storage,
            directions=["minimize"] * 3,
            sampler=optuna.samplers.RandomSampler(seed=0),  # every trial is given, none is sampled
            load_if_exists=True,
        )

    @_keeping
    def outcomes(self) -> list[Outcome]:
        """Return what came of all trials, in the order in which they began.

        An estimate gives way to what was measured on all data.
        """
        found: dict[Recipe, Outcome] = {}
        dead: dict[tuple[Recipe, bool], int] = {}
        for trial in self._trials():
            if "outcome" in trial.user_attrs:
                outcome = Outcome.from_dict(trial.user_attrs["outcome"])
            elif trial.user_attrs.get("died"):
                key = Recipe.from_dict(trial.user_attrs["recipe"]), _confirms(trial)
                dead[key] = dead.get(key, 0) + 1
                if dead[key] < _TRIES:
                    continue
                why = f"{dead[key]} workers died while they tried it"
                outcome = Outcome(key[0], why=why)
            else:
                continue
            before = found.get(outcome.recipe)
            if before is None or (before.samples and _confirms(trial)):
                found.pop(outcome.recipe, None)  # the confirmed one is the latest
                found[outcome.recipe] = outcome
        self.known = list(found.values())
        return self.known

    @_keeping
    def running(self) -> list[Recipe]:
        """Return what living workers are trying; give back what dead ones were."""
        found = []
        for trial in self._trials():
            if trial.state != self._states.RUNNING:
                continue
            if _alive(trial):
                found.append(Recipe.from_dict(trial.user_attrs["recipe"]))
            else:
                self._end(trial.number, died="outcome" not in trial.user_attrs)
        return found

    @contextlib.contextmanager
    def claim(self, recipe: Recipe, confirms: bool = False) -> Iterator[Claim | None]:
        """Lease a trial for the `with` block.

        Args:
            recipe: What is to be tried.
            confirms: Whether it was, and its estimate is to be confirmed. Defaults to False.

        Yields:
            The trial, perhaps of another recipe that was waiting; None if another worker was
            quicker.
        """
        begun = self._begin(recipe, confirms)
        if begun is None:
            yield None
            return
        trial, claim = begun
        stop = threading.Event()

        def renew() -> None:
            while not stop.wait(_RENEW):
                # Where it fails, the lease runs out, and the end of the trial says why.
                with contextlib.suppress(Exception):
                    trial.set_user_attr("lease", _lease())

        beat = threading.Thread(target=renew, daemon=True)
        beat.start()
        try:
            yield claim
        finally:
            stop.set()
            beat.join()
            self._finish(trial, claim)

    @_keeping
    def _begin(self, recipe: Recipe, confirms: bool) -> tuple[optuna.trial.Trial, Claim] | None:
        """Lease a trial; None if another worker was quicker."""
        attributes = {"recipe": recipe.to_dict(), "confirms": confirms}
        self._study.enqueue_trial({}, user_attrs=attributes)
        trial = self._study.ask()
        trial.set_user_attr("lease", _lease())
        wanted, confirms = Recipe.from_dict(trial.user_attrs["recipe"]), _confirms(trial)
        before = next((o for o in self.outcomes() if o.recipe == wanted), None)
        if self._taken(wanted, trial.number, confirms, before):
            self._end(trial.number)
            return None
        return trial, Claim(wanted, before if confirms else None)

    @_keeping
    def _finish(self, trial: optuna.trial.Trial, claim: Claim) -> None:
        if claim.outcome is not None:
            trial.set_user_attr("label", claim.recipe.label())
            trial.set_user_attr("outcome", claim.outcome.to_dict())
        self._end(trial.number, claim.outcome)

    def _taken(self, recipe: Recipe, number: int, confirms: bool, before: Outcome | None) -> bool:
        """Return whether an earlier trial of the same recipe is done, or is being done."""
        if before is not None and not (confirms and before.samples):
            return True
        return any(
            trial.number < number
            and _confirms(trial) == confirms
            and trial.state == self._states.RUNNING
            and trial.user_attrs["recipe"] == recipe.to_dict()
            and _alive(trial)
            for trial in self._trials()
        )

    def _trials(self) -> list[optuna.trial.FrozenTrial]:
        return [
            trial
            for trial in self._study.get_trials(deepcopy=False)
            if "recipe" in trial.user_attrs and trial.state != self._states.WAITING
        ]

    def _end(self, number: int, outcome: Outcome | None = None, died: bool = False) -> None:
        if died:
            trial = self._study.get_trials(deepcopy=False)[number]
            self._study._storage.set_trial_user_attr(trial._trial_id, "died", True)
        if outcome is None or outcome.figures is None:
            self._study.tell(number, state=self._states.FAIL, skip_if_finished=True)
            return
        figures = outcome.figures
        values = [outcome.loss, float(figures.bytes), figures.latency]
        self._study.tell(number, values, skip_if_finished=True)


class Claim:
    """A trial that is leased.

    Attributes:
        recipe: What is to be tried.
        estimate: What came of it before, which is to be confirmed; None if it is new.
        outcome: What came of it; to be set. None gives the trial back to others.
    """

    def __init__(self, recipe: Recipe, estimate: Outcome | None = None) -> None:
        self.recipe = recipe
        self.estimate = estimate
        self.outcome: Outcome | None = None


def _lease() -> dict[str, Any]:
    return {"until": time.time() + _LEASE, "host": socket.gethostname(), "pid": os.getpid()}


def _confirms(trial: optuna.trial.FrozenTrial | optuna.trial.Trial) -> bool:
    return bool(trial.user_attrs.get("confirms"))


def _alive(trial: optuna.trial.FrozenTrial) -> bool:
    lease = trial.user_attrs.get("lease")
    if lease is None:  # its worker is about to write it
        started = trial.datetime_start
        return started is not None and started.timestamp() + _LEASE > time.time()
    if lease["host"] == socket.gethostname() and not _runs(lease["pid"]):
        return False
    return bool(lease["until"] > time.time())


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
