import errno
import os
import tempfile

import pytest

from tfcompress.edge.system.leftovers import held
from tfcompress.edge.system.scratch import raise_if_full, scratch_folder


@pytest.fixture(autouse=True)
def temporary(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def test_scratch_folder_removes_folders_of_killed_processes_only(tmp_path):
    left, other, at_work = (
        tmp_path / n for n in ("tfcompress-scratch-a", "tfcompress-demo", "tfcompress-scratch-b")
    )
    for folder in (left, other, at_work):
        folder.mkdir()
        (folder / "weights").write_text("w")
        os.utime(folder, (0, 0))
    with held(at_work), scratch_folder() as folder:
        assert folder.is_dir()
        assert not left.exists()
        assert other.exists()
        assert at_work.exists()
        os.utime(folder, (0, 0))
        with scratch_folder():
            assert folder.is_dir()
    assert not folder.exists()


def test_scratch_folder_says_where_the_disk_is_full_unless_it_is_another(tmp_path):
    with pytest.raises(OSError, match="TMPDIR") as caught, scratch_folder():
        raise_if_full("UnknownError: x/y; No space left on device")
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(tmp_path))
    with pytest.raises(OSError, match="on the target") as caught, scratch_folder():
        raise OSError(errno.ENOSPC, "on the target", "/elsewhere/m.tflite")
    assert caught.value.filename == "/elsewhere/m.tflite"
    raise_if_full("another fault")
