import os

import pytest


def need(condition: object, reason: str) -> None:
    """Skip the calling test on a user's machine, fail it in CI, where a component is missing."""
    if condition:
        return
    if os.environ.get("CI"):
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)
