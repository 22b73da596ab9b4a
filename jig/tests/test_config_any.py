"""Whatever a config holds, it is understood, or an error says which key is wrong; nothing else ever happens."""

from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jig.config.file import read_toml
from jig.config.model import DeployConfig, ImageConfig
from jig.config.sections import read_config
from jig.errors import ConfigError

any_values = settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.one_of(st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.datetimes()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
KEYS = st.sampled_from([*DeployConfig.__dataclass_fields__, *ImageConfig.__dataclass_fields__, "python_version", "run"])
SECTIONS = st.dictionaries(KEYS, VALUES, max_size=4)
TABLES = st.fixed_dictionaries(
    {},
    optional={
        "name": VALUES,
        "worker": VALUES | st.just("worker:Worker"),
        "gpu": VALUES | st.sampled_from(["A100", "none", "H100"]),
        "gpu_count": VALUES,
        "image": SECTIONS | VALUES,
        "deploy": SECTIONS | VALUES,
        "experimental": SECTIONS | VALUES,
        "autoscaling": VALUES,
        "volume_mounts": VALUES,
        "unknown": VALUES,
    },
)


@any_values
@given(TABLES)
def test_any_table_is_a_config_or_refused(values: dict[str, Any]) -> None:
    try:
        config = read_config(values, Path("jig.toml"), "", "fallback")
    except ConfigError as refused:
        assert "jig.toml" in str(refused)
    else:
        assert config.name


@any_values
@given(
    text=st.text()
    | st.lists(st.sampled_from(['a = "b"', "[image]", "a = 1", "[[x]]", "a = {", "a.b = []"])).map("\n".join)
)
def test_any_text_is_a_file_of_tables_or_refused(tmp_path_factory: Any, text: str) -> None:
    path = tmp_path_factory.mktemp("any") / "jig.toml"
    path.write_text(text)
    try:
        assert isinstance(read_toml(path), dict)
    except ConfigError as refused:
        assert "jig.toml" in str(refused)
