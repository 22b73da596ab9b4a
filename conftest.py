"""Loads the three packages first: pytest would otherwise take the folders of the same names for them."""

from hypothesis import HealthCheck, settings

import jig
import machineshop
import sprocket

PACKAGES = (jig, machineshop, sprocket)

# How fast this machine is today must not decide whether a property holds.
settings.register_profile("default", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("default")
