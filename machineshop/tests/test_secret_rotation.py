"""The key of the secrets is changed while servers run, and whoever is cut off begins again."""

import base64
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from machineshop.errors import InvalidRequest, SecretsKeyMissing
from machineshop.models import Identity
from machineshop.services.deployments import DeploymentService
from machineshop.services.keyring import KeyRing, KeysInUse, KeysUnusable
from machineshop.services.secret_rotation import rotate
from machineshop.services.secret_rules import SecretFields
from machineshop.services.secrets import SecretService
from machineshop.store import secrets as store
from machineshop.store.database import Database
from migrated import migrated_database

NAMES = [f"secret-{number}" for number in range(5)]


on_both = pytest.mark.parametrize("database_url", ["sqlite", "postgres"], indirect=True)


@pytest.fixture
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """SQLite, and Postgres too for what rests on its rows and locks."""
    return migrated_database(getattr(request, "param", "sqlite"), request, tmp_path)


class Cut(Exception):
    """Stands for the end of the process."""


@pytest.fixture
async def project_id(secrets: SecretService, admin: Identity) -> str:
    for name in NAMES:
        await secrets.create(admin.project.id, SecretFields(name=name, value=f"value of {name}"), "key-1")
    return admin.project.id


async def readable(secrets: SecretService, project_id: str) -> bool:
    found = await secrets.reveal(project_id, {name: name for name in NAMES})
    return found == {name: f"value of {name}" for name in NAMES}


@on_both
async def test_all_are_sealed_anew_and_the_old_key_goes(
    secrets: SecretService, project_id: str, database: Database, keys: KeyRing, tmp_path: Path
) -> None:
    before = await database.read(store.sealing_key)
    file = tmp_path / "secrets-key"
    old = file.read_text()
    left = tmp_path / ".secrets-key-left"  # by a run that was killed while it wrote
    left.write_text(old)

    # Another process: the server's own ring learns of the key by what it reads.
    rotated = await rotate(database, KeyRing(file))

    assert (rotated.sealed_anew, rotated.went_on) == (len(NAMES), False)
    assert await database.read(store.sealing_key) == rotated.key_id != before
    assert await database.read(store.count_of_other_keys, rotated.key_id) == 0
    kept = [line for line in file.read_text().splitlines() if not line.startswith("#")]
    assert len(kept) == 1
    assert kept[0] not in old
    assert not left.exists()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert await readable(secrets, project_id)
    await secrets.update(project_id, NAMES[0], SecretFields(value=f"value of {NAMES[0]}"), "key-1")
    assert await database.read(store.count_of_other_keys, rotated.key_id) == 0


def cuts() -> Iterator[tuple[str, Callable[[pytest.MonkeyPatch], None]]]:
    def before(module: object, name: str, calls: int = 1) -> Callable[[pytest.MonkeyPatch], None]:
        def apply(patch: pytest.MonkeyPatch) -> None:
            real, left = getattr(module, name), [calls]

            def cut(*arguments: object, **options: object) -> object:
                left[0] -= 1
                if left[0] <= 0:
                    raise Cut
                return real(*arguments, **options)

            patch.setattr(module, name, cut)

        return apply

    yield "before the key is on disk", before(KeyRing, "add")
    yield "before it is in use", before(store, "replace_key")
    yield "before the first secret", before(store, "reseal")
    yield "among the secrets", before(store, "reseal", 3)
    yield "before the old key goes", before(KeyRing, "keep_alone")


@pytest.mark.parametrize("cut", [cut for _, cut in cuts()], ids=[name for name, _ in cuts()])
async def test_cut_off_anywhere_every_secret_can_be_read_and_the_next_run_ends_it(
    secrets: SecretService,
    project_id: str,
    database: Database,
    deployments: DeploymentService,
    tmp_path: Path,
    cut: Callable[[pytest.MonkeyPatch], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file = tmp_path / "secrets-key"
    first = await database.read(store.sealing_key)
    with monkeypatch.context() as patch:
        cut(patch)
        with pytest.raises(Cut):
            await rotate(database, KeyRing(file))

    started = SecretService(database, KeyRing(file), deployments)
    await started.open()
    for server in (secrets, started):
        assert await readable(server, project_id)
        await server.update(project_id, NAMES[1], SecretFields(value=f"value of {NAMES[1]}"), "key-1")
    rotated = await rotate(database, KeyRing(file))

    assert rotated.key_id != first
    assert await database.read(store.count_of_other_keys, rotated.key_id) == 0
    assert len([line for line in file.read_text().splitlines() if not line.startswith("#")]) == 1
    for server in (secrets, started):
        assert await readable(server, project_id)


@on_both
async def test_a_server_that_still_seals_with_the_old_key_takes_the_new_one(
    secrets: SecretService, project_id: str, database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rotation comes between the look at which key is in use and the write that used it."""
    old = await database.read(store.sealing_key)
    rotated = await rotate(database, KeyRing(tmp_path / "secrets-key"))
    real, answers = store.sealing_key, [old]
    monkeypatch.setattr(store, "sealing_key", lambda conn: answers.pop() if answers else real(conn))

    await secrets.update(project_id, NAMES[0], SecretFields(value="newest"), "key-1")

    assert not answers
    assert await database.read(store.count_of_other_keys, rotated.key_id) == 0
    assert await secrets.reveal(project_id, {"V": NAMES[0]}) == {"V": "newest"}


async def test_a_secret_that_goes_meanwhile_is_left_alone(
    secrets: SecretService, project_id: str, database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resealed = store.reseal

    def change_first(conn: object, *arguments: object) -> bool:
        monkeypatch.setattr(store, "reseal", resealed)
        store.delete(conn, project_id, NAMES[0], 0.0)  # type: ignore[arg-type]
        return resealed(conn, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(store, "reseal", change_first)
    rotated = await rotate(database, KeyRing(tmp_path / "secrets-key"))
    assert rotated.sealed_anew == len(NAMES) - 1
    assert [secret.name for secret in await secrets.list_all(project_id)] == NAMES[1:]


@pytest.mark.parametrize("values", [True, False])
async def test_without_the_keys_that_are_in_use_nothing_is_changed(
    secrets: SecretService, project_id: str, database: Database, tmp_path: Path, values: bool
) -> None:
    if not values:
        for name in NAMES:
            await secrets.delete(project_id, name)
    elsewhere = tmp_path / "not-the-servers"
    elsewhere.mkdir()
    before = await database.read(store.sealing_key)
    with pytest.raises(SecretsKeyMissing):
        await rotate(database, KeyRing(elsewhere / "secrets-key"))
    assert await database.read(store.sealing_key) == before
    assert not (elsewhere / "secrets-key").exists()


async def test_one_rotation_at_a_time(
    secrets: SecretService, project_id: str, database: Database, keys: KeyRing, tmp_path: Path
) -> None:
    with keys.rotating(), pytest.raises(KeysInUse, match="under way"):
        await rotate(database, KeyRing(tmp_path / "secrets-key"))


def key() -> str:
    return base64.b64encode(os.urandom(32)).decode()


async def test_keys_that_are_given_are_changed_by_giving_another(
    database: Database, deployments: DeploymentService, admin: Identity, tmp_path: Path
) -> None:
    old, new, file = key(), key(), tmp_path / "secrets-key"
    server = SecretService(database, KeyRing(file, old), deployments)
    await server.open()
    await server.create(admin.project.id, SecretFields(name="n", value="v"), "key-1")

    with pytest.raises(InvalidRequest, match="holds no new key"):
        await rotate(database, KeyRing(file, old))
    rotated = await rotate(database, KeyRing(file, f"{new},{old}"))

    assert rotated.sealed_anew == 1
    server = SecretService(database, KeyRing(file, new), deployments)
    await server.open()
    assert await server.reveal(admin.project.id, {"V": "n"}) == {"V": "v"}
    assert not file.exists()


@pytest.mark.parametrize(
    "given",
    ["", "short", base64.b64encode(b"x" * 31).decode(), f"{key()},nonsense!"],
    ids=["empty", "short", "31 bytes", "nonsense after a comma"],
)
def test_what_is_no_key_is_refused_and_not_quoted(given: str, tmp_path: Path) -> None:
    with pytest.raises(KeysUnusable, match="32 bytes in base64") as refused:
        KeyRing(tmp_path / "secrets-key", given)
    assert not given or given not in refused.value.message


def test_a_file_that_others_could_read_is_closed(tmp_path: Path) -> None:
    file = tmp_path / "secrets-key"
    first = KeyRing(file).newest().id
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    file.chmod(0o644)
    assert KeyRing(file).newest().id == first
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_file_without_a_key_is_an_error_and_no_reason_to_make_one(tmp_path: Path) -> None:
    file = tmp_path / "secrets-key"
    file.write_text("# nothing\n")
    with pytest.raises(KeysUnusable, match="there is no key"):
        KeyRing(file).newest()
    assert file.read_text() == "# nothing\n"
