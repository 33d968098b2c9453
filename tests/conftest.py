"""For all tests: no wall clock decides. Hypothesis would fail an example that a busy machine was slow to make."""

from hypothesis import HealthCheck, settings

settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")
