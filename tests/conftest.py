"""What every test runs under."""

from __future__ import annotations

from importlib.util import find_spec

pytest_plugins = ["support.browser"]

if find_spec("hypothesis") is not None:  # scripts/gpu runs tests/gpu with pytest alone
    from hypothesis import HealthCheck, settings

    # A gate gives the same answer twice, and on a loaded machine too: examples follow from the
    # test alone and no clock decides. `--hypothesis-profile=explore` draws others, every night.
    _PATIENT = settings(deadline=None, suppress_health_check=(HealthCheck.too_slow,))
    settings.register_profile("steady", _PATIENT, derandomize=True)
    settings.register_profile("explore", _PATIENT, derandomize=False)
    settings.load_profile("steady")
