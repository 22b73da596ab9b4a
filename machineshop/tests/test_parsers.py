"""Whatever text comes in, a parser understands it or says what is wrong with it; nothing else ever happens."""

import json
import math
from datetime import datetime
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from machineshop.api.durations import parse_duration, parse_number, parse_time
from machineshop.config import parse_networks
from machineshop.errors import InvalidRequest, MachineshopError
from machineshop.services import deployment_rules
from machineshop.services.registry_tokens import Claims, read, sign
from machineshop.tls.bundle import certificates
from machineshop.tls.names import sort

BEGIN, END = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
# The same examples each time: a run says whether something was broken, not whether it was lucky.
any_text = settings(max_examples=100, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
DURATIONS = st.lists(
    st.tuples(st.integers(0, 10**6), st.sampled_from(["ns", "us", "µs", "ms", "s", "m", "h"])), min_size=1, max_size=4
)
JSON: st.SearchStrategy[Any] = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**53), 2**53), st.floats(-1e9, 1e9), st.text()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
NAMES = (
    *("name", "image", "gpu_type", "cpu", "memory", "port", "command", "environment_variables", "autoscaling"),
    *("volumes", "model_mounts", "health_check_path", "min_replicas", "max_replicas", "experimental"),
)
FIELDS = st.dictionaries(st.sampled_from(NAMES), JSON)


@any_text
@given(st.text() | st.from_regex(r"[0-9]{1,12}(\.[0-9]+)?[a-zµ]{0,3}"))
def test_any_text_is_a_duration_or_refused(text: str) -> None:
    try:
        seconds = parse_duration(text, "timeout")
    except InvalidRequest as refused:
        assert refused.param == "timeout"
    else:
        assert math.isfinite(seconds)
        assert seconds >= 0


@any_text
@given(DURATIONS)
def test_a_duration_is_the_sum_of_its_parts(parts: list[tuple[int, str]]) -> None:
    whole = parse_duration("".join(f"{number}{unit}" for number, unit in parts), "timeout")

    assert math.isclose(whole, sum(parse_duration(f"{number}{unit}", "timeout") for number, unit in parts))


@any_text
@given(st.text() | st.datetimes().map(datetime.isoformat) | st.integers().map(str))
def test_any_text_is_a_time_and_a_number_or_refused(text: str) -> None:
    for parse in (parse_time, lambda text, param: parse_number(text, param, least=-5, most=5)):
        try:
            assert math.isfinite(parse(text, "at"))
        except InvalidRequest as refused:
            assert refused.param == "at"


@any_text
@given(FIELDS)
def test_any_fields_are_a_deployment_or_refused(fields: dict[str, Any]) -> None:
    try:
        config = deployment_rules.parse(fields)
    except MachineshopError as refused:
        assert refused.message
    else:
        assert json.loads(msgspec.json.encode(config))["name"] == config.name


@any_text
@given(st.text() | st.from_regex(r"[0-9]{1,3}(\.[0-9]{1,3}){3}/[0-9]{1,3}"))
def test_any_text_is_a_network_or_refused(text: str) -> None:
    try:
        assert len(parse_networks([text])) == 1
    except InvalidRequest as refused:
        assert refused.param == "webhook_networks"


@any_text
@given(st.text() | st.text().map(lambda text: f"mrt_{text}"))
def test_no_text_but_our_own_is_a_token(text: str) -> None:
    secret = b"s" * 32
    with pytest.raises(MachineshopError):
        read(secret, text, 0.0)
    with pytest.raises(MachineshopError):
        read(b"another" * 5, sign(secret, Claims("key", 10, ())), 0.0)


@any_text
@given(st.lists(st.text() | st.ip_addresses().map(str) | st.from_regex(r"[A-Za-z0-9.*-]{1,40}"), max_size=5))
def test_any_texts_are_sorted_into_what_a_certificate_may_name(texts: list[str]) -> None:
    names = sort(texts)

    assert sort([*names.hosts, *names.addresses]) == names


@any_text
@given(st.text() | st.lists(st.sampled_from([BEGIN, END, "x"])).map("".join))
def test_the_certificates_of_any_text_are_whole(text: str) -> None:
    for found in certificates(text):
        assert (found.count(BEGIN), found.count(END)) == (1, 1)
