"""What the tests of tlx and those of its plugins have in common."""

from hypothesis import HealthCheck, settings

# How long an example takes says more of what else the machine does than of tlx.
settings.register_profile("tlx", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tlx")
