import os
import stat
from pathlib import Path

import pytest

from tfcompress.edge.system.files import check_folder, write_whole
from tfcompress.edge.system.leftovers import held


def test_write_whole_names_the_file_that_it_cannot_write(tmp_path):
    kept = tmp_path / "kept.txt"
    kept.write_text("old")
    missing = tmp_path / "nowhere" / "new.txt"
    with pytest.raises(FileNotFoundError) as caught:
        write_whole({kept: b"new", missing: b"new"})
    assert caught.value.filename == str(missing)
    assert kept.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["kept.txt"]


def test_write_whole_keeps_links(tmp_path):
    (tmp_path / "file").write_text("old")
    (tmp_path / "link").symlink_to("file")
    write_whole({tmp_path / "link": b"new"})
    assert (tmp_path / "link").readlink() == Path("file")
    assert (tmp_path / "file").read_text() == "new"


@pytest.mark.parametrize("mode", [0o600, 0o440])
def test_write_whole_keeps_permissions(mode, tmp_path):
    (tmp_path / "file").write_text("old")
    (tmp_path / "file").chmod(mode)
    write_whole({tmp_path / "file": b"new"})
    assert (tmp_path / "file").read_text() == "new"
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == mode


def test_write_whole_removes_drafts_of_killed_processes_only(tmp_path):
    left, fresh, held_draft = (tmp_path / f".{n}.tfcompress-draft" for n in "abc")
    for draft in (left, fresh, held_draft):
        draft.write_text("half")
    for draft in (left, held_draft):
        os.utime(draft, (0, 0))
    with held(held_draft):
        write_whole({tmp_path / "file": b"new"})
    assert not left.exists()
    assert fresh.exists()
    assert held_draft.exists()


def test_check_folder_refuses_a_missing_folder_and_one_without_permission(tmp_path, monkeypatch):
    check_folder(tmp_path / "a.tflite")
    with pytest.raises(ValueError, match="There is no folder"):
        check_folder(tmp_path / "nowhere" / "a.tflite")
    # Root may write anywhere, so the answer of the system is given.
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(PermissionError, match=r"a\.tflite"):
        check_folder(tmp_path / "a.tflite")
