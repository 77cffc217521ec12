import os

import pytest

from tfcompress.edge.system.console import captured


def test_captured_restores_the_console_in_any_thread(capfd):
    from concurrent.futures import ThreadPoolExecutor

    def speak(number):
        with captured() as console:
            os.write(2, f"<{number}>".encode())
        return console.text

    with ThreadPoolExecutor(8) as pool:
        said = list(pool.map(speak, range(50)))
    assert said == [f"<{number}>" for number in range(50)]
    with pytest.raises(ZeroDivisionError), captured():
        raise ZeroDivisionError
    os.write(1, b"out")
    os.write(2, b"err")
    assert capfd.readouterr() == ("out", "err")
