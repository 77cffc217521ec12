import subprocess
import sys
from pathlib import Path

import pytest

from tfcompress import converters
from tfcompress.converters.jobs.rewrite import load_pass

# The package as a child process has it, under its private name.
PROGRAM = """
import importlib, sys, types

package = types.ModuleType("_converters")
package.__path__ = [sys.argv[1]]
sys.modules[package.__name__] = package
load_pass = importlib.import_module("_converters.jobs.rewrite").load_pass
for module in sys.argv[2:]:
    print(load_pass(module).__module__)
print(*(name for name in ("tfcompress", "keras", "tensorflow") if name in sys.modules))
"""


def test_passes_of_the_package_and_files_import_no_more_than_they_need(tmp_path):
    (tmp_path / "mine.py").write_text(
        "from .flatbuffer import pack\ndef rewrite(content): return pack(content)\n"
    )
    folder = Path(converters.__file__).parent
    done = subprocess.run(
        [sys.executable, "-P", "-c", PROGRAM, folder, "sparsify", tmp_path / "mine.py"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    loaded, own, imported = done.stdout.splitlines()
    assert (loaded, own) == ("_converters.passes.sparsify", "_converters.passes.mine")
    assert imported == ""


@pytest.mark.parametrize(
    ("module", "kind"), [("nothing", ImportError), ("nowhere/mine.py", FileNotFoundError)]
)
def test_load_pass_refuses_what_is_not_there(module, kind):
    with pytest.raises(kind):
        load_pass(module)
