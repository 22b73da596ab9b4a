"""What a deployment's configuration must satisfy."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from machineshop.errors import InsufficientCapacity, InvalidRequest
from machineshop.services.deployment_rules import check_capacity, makes_revision, parse, patched

GOOD = {"name": "hello", "image": "host/ns/hello@sha256:1", "gpu_type": "none"}


def test_defaults_are_those_of_the_contract() -> None:
    config = parse(GOOD)
    assert (config.gpu_count, config.min_replicas, config.max_replicas) == (0, 1, 1)
    assert (config.health_check_path, config.termination_grace_period_seconds) == ("/health", 300)
    assert parse({**GOOD, "min_replicas": 3}).max_replicas == 3


def test_what_a_process_can_just_be_given_is_taken() -> None:
    longest = {"name": "A", "value": "x" * 131_069}
    config = parse({**GOOD, "memory": 0.01, "command": ["x" * 131_071], "environment_variables": [longest]})
    assert len(config.command[0]) == 131_071


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"name": None}, "name"),
        ({"name": "ab"}, "name"),
        ({"name": "Hello"}, "name"),
        ({"name": "-hello"}, "name"),
        ({"name": "h" * 64}, "name"),
        ({"name": "hello_you"}, "name"),
        ({"name": "hello\n"}, "name"),
        ({"gpu_type": "h100"}, "gpu_type"),
        ({"gpu_type": 5}, "gpu_type"),
        ({"gpu_count": 1}, "gpu_count"),
        ({"gpu_count": -1}, "gpu_count"),
        ({"cpu": 0.05}, "cpu"),
        ({"memory": 1001}, "memory"),
        ({"memory": 0.005}, "memory"),
        ({"command": ["x" * 131_072]}, "command"),
        ({"args": ["é" * 65_536]}, "args"),
        ({"environment_variables": [{"name": "A", "value": "x" * 131_070}]}, "environment_variables"),
        ({"storage": 401}, "storage"),
        ({"port": 0}, "port"),
        ({"port": 65536}, "port"),
        ({"port": "8000"}, "port"),
        ({"min_replicas": 2, "max_replicas": 1}, "max_replicas"),
        ({"command": "python app.py"}, "command"),
        ({"environment_variables": {"A": "b"}}, "environment_variables"),
        (
            {"environment_variables": [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]},
            "environment_variables",
        ),
        (
            {"environment_variables": [{"name": "A", "value": "1", "value_from_secret": "s"}]},
            "environment_variables",
        ),
        ({"environment_variables": [{"name": "A=B", "value": "1"}]}, "environment_variables"),
        ({"health_check_path": "health"}, "health_check_path"),
        ({"health_check_path": "/a b"}, "health_check_path"),
        ({"health_check_path": "/\r\nX: y"}, "health_check_path"),
        ({"command": ["python", "a\0b"]}, "command"),
        ({"args": ["a\0b"]}, "args"),
        ({"description": "a\0b"}, "description"),
        ({"environment_variables": [{"value": "1"}]}, "environment_variables[0].name"),
        ({"volumes": [{"name": "weights", "mount_path": "w"}]}, "volumes"),
        ({"model_mounts": [{"model_id": "ml_1", "mount_path": "/w"}]}, "model_mounts"),
        ({"autoscaling": {"metric": "Nonsense"}}, "autoscaling.metric"),
        ({"autoscaling": {"metric": ["QueueBacklogPerWorker"]}}, "autoscaling.metric"),
        ({"autoscaling": {"metric": "QueueBacklogPerWorker", "target": True}}, "autoscaling.target"),
        ({"autoscaling": {"metric": "QueueBacklogPerWorker", "target": "a"}}, "autoscaling.target"),
        ({"autoscaling": {"metric": "QueueBacklogPerWorker", "target": 1e-308}}, "autoscaling.target"),
        ({"autoscaling": {"metric": "QueueBacklogPerWorker", "target": 0}}, "autoscaling.target"),
        ({"autoscaling": {"metric": "QueueBacklogPerWorker", "target": 1, "max_step": 0}}, "autoscaling.max_step"),
        ({"capacity_type": "cheap"}, "capacity_type"),
        ({"termination_grace_period_seconds": -1}, "termination_grace_period_seconds"),
    ],
)
def test_a_wrong_field_is_named(change: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        parse({**GOOD, **change})
    assert (refused.value.param or "").startswith(param)
    assert refused.value.message


def test_the_bounds_of_a_scaling_target_are_written_out() -> None:
    with pytest.raises(InvalidRequest, match=r"must be a number from 0\.001 to 1,000,000,000, not 'a'"):
        parse({**GOOD, "autoscaling": {"metric": "QueueBacklogPerWorker", "target": "a"}})


@pytest.mark.parametrize(("inner", "said"), [("/w", "both mounted at '/w'"), ("/w/a", "one within the other")])
def test_volumes_are_mounted_beside_each_other(inner: str, said: str) -> None:
    volumes = [{"name": "words", "mount_path": "/w"}, {"name": "weights", "mount_path": inner}]
    with pytest.raises(InvalidRequest, match=said):
        parse({**GOOD, "volumes": volumes})


@pytest.mark.parametrize("missing", list(GOOD))
def test_a_missing_field_is_named(missing: str) -> None:
    with pytest.raises(InvalidRequest, match=missing):
        parse({name: value for name, value in GOOD.items() if name != missing})


def test_unknown_fields_are_ignored() -> None:
    assert parse({**GOOD, "experimental": {"auto_optimize": True}}) == parse(GOOD)


@pytest.mark.parametrize("off", [{}, None])
def test_empty_autoscaling_is_off(off: object) -> None:
    assert parse({**GOOD, "autoscaling": off}).autoscaling is None


def test_a_patch_changes_only_what_it_names() -> None:
    config = parse(
        {**GOOD, "min_replicas": 2, "command": ["a"], "environment_variables": [{"name": "A", "value": "1"}]}
    )
    changed = patched(config, {"command": ["b"], "health_check_path": ""})
    assert (changed.command, changed.health_check_path) == (("b",), "")
    assert (changed.min_replicas, changed.environment_variables) == (2, config.environment_variables)
    with pytest.raises(InvalidRequest, match="cannot be changed"):
        patched(config, {"name": "other"})


def test_replica_bounds_alone_make_no_revision() -> None:
    config = parse(GOOD)
    bounds = patched(config, {"min_replicas": 4})
    assert (bounds.min_replicas, bounds.max_replicas) == (4, 4)
    assert not makes_revision(config, bounds)
    assert makes_revision(config, patched(config, {"cpu": 2}))


def test_a_gpu_where_there_is_none_is_refused_with_the_way_out() -> None:
    config = parse({**GOOD, "gpu_type": "h100-80gb", "gpu_count": 2})
    with pytest.raises(InsufficientCapacity, match=r"2 x h100-80gb.*no GPU.*gpu_type to 'none'"):
        check_capacity(config, gpus=0)
    with pytest.raises(InsufficientCapacity, match="has 1 GPU"):
        check_capacity(config, gpus=1)
    check_capacity(config, gpus=2)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=10), children, max_size=3),
    max_leaves=8,
)


FIELDS = st.sampled_from([*GOOD, "port", "command", "environment_variables", "autoscaling", "volumes"])


@given(st.dictionaries(FIELDS, JSON))
def test_any_json_is_parsed_or_refused_cleanly(change: dict[str, Any]) -> None:
    try:
        parse({**GOOD, **change})
    except InvalidRequest as refused:
        assert refused.message


def test_a_part_of_the_apis_paths_is_no_name() -> None:
    for name in ("secrets", "storage", "prewarm"):
        with pytest.raises(InvalidRequest, match="a part of the API"):
            parse({"name": name, "image": "r/n@sha256:1", "gpu_type": "none"})
