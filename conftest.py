"""What the tests of tlx and those of its plugins have in common."""

import subprocess
import sys

import pytest
from hypothesis import HealthCheck, settings

# How long an example takes says more of what else the machine does than of tlx.
settings.register_profile("tlx", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tlx")


@pytest.fixture(scope="session")
def output_of():
    """Return a function that runs code in an interpreter of its own, where nothing is imported yet."""

    def output_of(code):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return output_of
