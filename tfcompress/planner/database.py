"""Open the database of a study: the right driver for its URL, and errors that say what to do."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

__all__ = ["open_database"]

_DRIVERS = ("psycopg", "psycopg2", "pg8000")
_TRIES = 3
"""Workers that begin at once may make the same tables; the slower one finds them made."""


def open_database(url: str) -> Any:
    """Open a database, and make the tables of Optuna in it if there are none.

    Args:
        url: URL as SQLAlchemy takes it. "postgresql://" and "postgres://" take whichever driver is
            installed.

    Returns:
        A storage of Optuna.

    Raises:
        ValueError: The text is no URL of a kind of database that SQLAlchemy knows.
        ImportError: The driver of the database is not installed.
        ConnectionError: The database does not answer, or refuses.
    """
    import optuna
    import sqlalchemy

    try:
        parsed = sqlalchemy.make_url(url)
        if parsed.drivername in ("postgres", "postgresql"):
            parsed = parsed.set(drivername=f"postgresql+{_postgresql_driver()}")
        parsed.get_dialect()
    except sqlalchemy.exc.ArgumentError as error:
        raise ValueError(
            "`database` must be a URL such as postgresql://user@host/name. Received something "
            f"that SQLAlchemy cannot read: {error}"
        ) from error
    shown = parsed.render_as_string(hide_password=True)
    for tried in range(1, _TRIES + 1):
        try:
            return optuna.storages.RDBStorage(parsed.render_as_string(hide_password=False))
        except ImportError as error:
            missing = _missing(error)
            raise ImportError(
                f"The database {shown} needs a driver that is not installed: {missing}. Install it "
                "with pip."
            ) from error
        except (sqlalchemy.exc.IntegrityError, sqlalchemy.exc.ProgrammingError) as error:
            if tried == _TRIES:
                raise _refused(shown, error) from error
        except sqlalchemy.exc.DBAPIError as error:
            raise _refused(shown, error) from error
    raise AssertionError  # the last try returns or raises


def _postgresql_driver() -> str:
    for name in _DRIVERS:
        if find_spec(name):
            return name
    raise ImportError(
        "A PostgreSQL database needs a driver, and none is installed. Install one with: "
        "pip install 'psycopg[binary]'"
    )


def _missing(error: BaseException | None) -> str:
    """Return the name of the module that an error, or one that it came of, is about."""
    while error is not None:
        if isinstance(error, ModuleNotFoundError) and error.name:
            return error.name
        error = error.__cause__ or error.__context__
    return "see above"


def _refused(shown: str, error: Any) -> ConnectionError:
    said = str(error.orig).strip().splitlines() or [type(error.orig).__name__]
    return ConnectionError(
        f"The database {shown} cannot be used: {said[0]}. Check that it runs, that it exists, and "
        "its user and password."
    )
