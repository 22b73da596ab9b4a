"""What jig knows of the platform's fields, of which the two have a list each."""

from jig.config.sections import AUTOSCALING_KEYS
from machineshop.api.described.deployments import Autoscaling


def test_jig_takes_every_field_of_a_scaling_policy_for_known() -> None:
    assert set(AUTOSCALING_KEYS) == set(Autoscaling.__struct_fields__)
