"""Whatever text comes in, a parser understands it or says what is wrong with it; nothing else ever happens."""

import gzip
import io
import json
import math
import tarfile
import tempfile
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from machineshop.api.durations import parse_duration, parse_number, parse_time
from machineshop.api.events import _parse_cursor
from machineshop.api.queue import _decode_cursor, _encode_cursor
from machineshop.blobs.layout import is_digest
from machineshop.config import parse_networks
from machineshop.errors import InvalidRequest, MachineshopError
from machineshop.registry.uploads import _CONTENT_RANGE
from machineshop.runtime.archive import UnsafeArchive, unpack
from machineshop.services import deployment_rules
from machineshop.services.manifests import check_manifest
from machineshop.services.references import parse_reference
from machineshop.services.registry_tokens import Claims, read, sign
from machineshop.services.targets import Targets
from machineshop.store.webhooks import host_of
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
DIGESTS = st.just("sha256:" + "0a" * 32) | st.text(max_size=8)
REFERENCES = st.builds(
    "{}{}{}{}".format,
    st.sampled_from(["", "localhost/", "host:5000/", "[::1]:1/", "a.b/", "-/"]),
    st.from_regex(r"\A[a-z0-9._/-]{1,20}\Z"),
    st.sampled_from(["", ":v1", ":", ":-", ":" + "x" * 129]),
    st.just("") | DIGESTS.map("@{}".format),
)
DESCRIPTORS = st.fixed_dictionaries({"mediaType": st.text(max_size=8), "digest": DIGESTS, "size": st.integers(-1, 9)})
MANIFESTS = st.fixed_dictionaries(
    {"schemaVersion": st.just(2), "config": DESCRIPTORS, "layers": st.lists(DESCRIPTORS, max_size=2)},
    optional={
        "mediaType": st.sampled_from(["application/vnd.oci.image.manifest.v1+json", "text/plain"]),
        "manifests": st.lists(DESCRIPTORS, max_size=2),
        "subject": DESCRIPTORS,
        "annotations": JSON,
    },
)
URLS = st.builds(
    "{}://{}{}{}".format,
    st.sampled_from(["http", "https", "ftp", "HTTPS"]),
    st.sampled_from(
        ["example.com", "127.1", "0x7f.1", "[::1]", "[::ffff:10.0.0.1]", "a@b", "", "xn--a", "[", "2130706433"]
    ),
    st.sampled_from(["", ":80", ":99999", ":x", ":"]),
    st.text(max_size=6).map("/{}".format),
)
PATHS = st.sampled_from(["a", "a/b", "../x", "/etc/x", "a/../../x", ".", "", "é", "a\nb"]) | st.text(max_size=12)
ENTRIES = st.tuples(
    PATHS.filter(lambda path: "\0" not in path),
    st.sampled_from([tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE]),
    st.binary(max_size=20),
    PATHS.filter(lambda path: "\0" not in path),
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


@any_text
@given(st.text() | REFERENCES)
def test_any_text_is_an_image_or_refused(text: str) -> None:
    try:
        reference = parse_reference(text)
    except InvalidRequest as refused:
        assert refused.param == "image"
    else:
        assert parse_reference(str(reference)) == reference


@any_text
@given(st.binary() | JSON.map(json.dumps).map(str.encode) | MANIFESTS.map(json.dumps).map(str.encode))
def test_any_bytes_are_a_manifest_or_refused(content: bytes) -> None:
    try:
        manifest, media_type = check_manifest(content, None)
    except MachineshopError as refused:
        assert refused.message
    else:
        assert media_type
        assert all(is_digest(blob.digest) for blob in manifest.blobs)


@any_text
@given(st.text() | st.integers(0, 10**20).map(str) | st.from_regex(r"\A[0-9]{0,20}\.?[0-9]{0,20}\Z"))
def test_any_text_is_a_cursor_or_refused(text: str) -> None:
    for parse, param in ((_decode_cursor, "cursor"), (_parse_cursor, "last_event_id")):
        try:
            parse(text)
        except InvalidRequest as refused:
            assert refused.param == param


@any_text
@given(st.integers(0, 10**18 - 1))
def test_a_cursor_is_read_as_it_was_given(sequence: int) -> None:
    assert _decode_cursor(_encode_cursor(sequence)) == sequence


@any_text
@given(st.text() | st.from_regex(r"\A(bytes )?[0-9]{0,25}-[0-9]{0,25}(/([0-9]{0,5}|\*))?\Z"))
def test_any_content_range_is_whole_or_refused(text: str) -> None:
    match = _CONTENT_RANGE.fullmatch(text.strip())
    if match is not None:
        assert 0 <= int(match[1]) < 10**20
        assert 0 <= int(match[2]) < 10**20


@any_text
@given(st.text() | URLS)
def test_any_text_is_a_webhooks_url_or_refused(text: str) -> None:
    targets = Targets((), loopback=False, own_port=lambda: 8799)
    try:
        targets.check_url(text)
    except InvalidRequest as refused:
        assert refused.param == "webhook_url"
    else:
        assert urlsplit(text).scheme in {"http", "https"}
        assert host_of(text)


@any_text
@given(data=st.data())
def test_any_bytes_are_an_archive_that_stays_inside_or_refused(data: st.DataObject) -> None:
    packed = bytearray(_archive(data.draw(st.lists(ENTRIES, max_size=4))))
    for place, value in data.draw(st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), max_size=3)):
        packed[place % len(packed)] = value
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "inside" / "target"
        target.parent.mkdir()
        try:
            unpack(io.BytesIO(gzip.compress(bytes(packed)) if data.draw(st.booleans()) else bytes(packed)), target)
        except UnsafeArchive as refused:
            assert str(refused)
        assert [path.name for path in Path(folder).iterdir()] == ["inside"]
        assert [path.name for path in target.parent.iterdir()] == ["target"]


def _archive(entries: list[tuple[str, bytes, bytes, str]]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name, kind, content, link in entries:
            member = tarfile.TarInfo(name)
            member.type, member.linkname, member.size = kind, link, len(content) if kind == tarfile.REGTYPE else 0
            tar.addfile(member, io.BytesIO(content))
    return packed.getvalue()
