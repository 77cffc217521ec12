import pytest

from tests.support.postgres_server import postgres_server
from tfcompress.planner import database
from tfcompress.planner.database import open_database


@pytest.mark.parametrize(
    ("url", "kind", "words"),
    [
        ("journal://x/y", ValueError, "must be a URL such as postgresql://user@host/name"),
        ("://", ValueError, "must be a URL"),
        ("postgresql://me:secret@127.0.0.1:1/x", ConnectionError, r"me:\*\*\*@.*refused.*it runs"),
        ("postgres://me:secret@127.0.0.1:1/x", ConnectionError, r"me:\*\*\*@.*refused.*it runs"),
        ("sqlite:////nowhere/x.db", ConnectionError, "unable to open database file"),
    ],
)
def test_database_that_cannot_be_used_is_an_error_without_its_password(url, kind, words):
    with pytest.raises(kind, match=words) as caught:
        open_database(url)
    assert "secret" not in str(caught.value)


def test_missing_driver_says_what_to_install(monkeypatch):
    monkeypatch.setattr(database, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pip install 'psycopg\[binary\]'"):
        open_database("postgresql://127.0.0.1/x")


def test_missing_driver_of_another_database_is_named():
    with pytest.raises(ImportError, match="MySQLdb"):
        open_database("mysql://me@127.0.0.1/x")


def test_postgresql_is_opened_with_the_driver_that_is_installed():
    with postgres_server() as url:
        for name in (url, url.replace("postgresql:", "postgres:")):
            storage = open_database(name)
            assert storage.get_all_studies() == []
        with pytest.raises(ConnectionError, match="password"):
            open_database(url.replace("not%20a", "a"))
