"""Projects are renamed and deleted: invisible at once, and gone with all that they had."""

from typing import Any

import httpx
import pytest
from sqlalchemy import Connection, text

from factory import Clock
from machineshop.app import Platform
from machineshop.errors import AlreadyExists, Conflict, InvalidRequest, NotFound
from machineshop.models import Identity, Scope
from machineshop.services.deployments import DeploymentService
from machineshop.services.identity import IdentityService
from machineshop.services.projects import ProjectService
from machineshop.services.queue import QueueService
from machineshop.services.secret_rules import SecretFields
from machineshop.services.secrets import SecretService
from machineshop.services.submissions import Submission
from machineshop.store.database import Database

RUNS = {"image": "registry/ns/hello@sha256:1", "gpu_type": "none"}


@pytest.fixture
def projects(database: Database, identity: IdentityService, clock: Clock) -> ProjectService:
    return ProjectService(database, identity.forget, clock)


def _fill_repository(conn: Connection, organization_id: str) -> None:
    conn.execute(text("INSERT INTO repositories VALUES ('r', :owner, 'app', 1.0)"), {"owner": organization_id})
    conn.execute(text("INSERT INTO tags VALUES ('r', 'v1', 'sha256:1', 1.0)"))
    conn.execute(text("INSERT INTO repository_blobs VALUES ('r', 'sha256:1', 1, 1.0, NULL)"))


async def _rows(database: Database, project_id: str) -> dict[str, Any]:
    """How many rows of each kind name a project."""
    tables = ("secrets", "webhook_signing", "webhook_secrets", "jobs", "files", "volumes")
    counts = {name: f"SELECT count(*) FROM {name} WHERE project_id = :project" for name in tables}

    def count(conn: Any) -> dict[str, Any]:
        return {name: conn.execute(text(query), {"project": project_id}).scalar() for name, query in counts.items()}

    return await database.read(count)


async def test_a_project_that_is_deleted_has_nothing_left(
    projects: ProjectService,
    identity: IdentityService,
    deployments: DeploymentService,
    queue: QueueService,
    secrets: SecretService,
    database: Database,
    admin: Identity,
) -> None:
    key, sent = await identity.create_key("team", "somebody", Scope.DEVELOPER)
    project_id = key.project_id
    await deployments.create(project_id, {"name": "hello", **RUNS})
    await queue.submit(project_id, Submission(model="hello", payload=b'{"a": 1}'))  # type: ignore[arg-type]
    await secrets.create(project_id, SecretFields(name="token", value="hidden"), key.id)
    with pytest.raises(Conflict, match="has deployments: hello"):
        await projects.delete("team")
    await deployments.delete(project_id, "hello")
    assert (await _rows(database, project_id))["jobs"] == 1

    gone = await projects.delete("team")

    assert (gone.id, gone.slug) == (project_id, "team")
    assert (await _rows(database, project_id))["secrets"] == 0
    with pytest.raises(Exception, match="unknown or revoked"):
        await identity.authenticate(sent)
    assert "team" not in {project.slug for project, _ in await identity.list_projects()}
    with pytest.raises(NotFound):
        await deployments.create(project_id, {"name": "late", **RUNS})
    assert await projects.purge(0.0) > 0
    assert set((await _rows(database, project_id)).values()) == {0}
    assert await projects.purge(0.0) == 0
    again, _ = await identity.create_project("team")
    assert again.id != project_id
    assert again.organization_id != gone.organization_id, "what was recorded is not for whoever takes the name next"


async def test_what_cannot_go_stays(
    projects: ProjectService, identity: IdentityService, admin: Identity, database: Database
) -> None:
    with pytest.raises(Conflict, match="server's own admin key"):
        await projects.delete("default")
    other, organization = await identity.create_project("team", organization_slug="default")
    with pytest.raises(Conflict, match="belongs to the project 'team' itself"):
        await projects.delete("team", own_id=other.id)
    with pytest.raises(NotFound):
        await projects.delete("team", organization_id="another")
    with pytest.raises(NotFound, match=r"There is no project 'nobody'\."):
        await projects.rename("nobody", "name")
    with pytest.raises(AlreadyExists, match=r"A project named 'team' already exists\."):
        await identity.create_project("team")
    assert other.id in {project.id for project, _ in await identity.list_projects(organization.id)}


async def test_no_project_is_called_like_the_id_of_another(
    projects: ProjectService, identity: IdentityService, database: Database, admin: Identity
) -> None:
    victim, _ = await identity.create_project("victim")
    for slug, organization in ((victim.id, None), ("mine", victim.id)):
        with pytest.raises(InvalidRequest, match="looks like the id of one"):
            await identity.create_project(slug, organization_slug=organization)
    with pytest.raises(InvalidRequest, match="looks like the id of one"):
        await identity.create_key(victim.id, "somebody", Scope.DEVELOPER)
    # One from before that was refused is what its slug says.
    other, _ = await identity.create_project("other")
    renamed = text("UPDATE projects SET slug = :slug WHERE id = :id")
    await database.write(lambda conn: conn.execute(renamed, {"slug": victim.id, "id": other.id}))
    assert (await projects.rename(victim.id, "Other")).id == other.id
    assert (await projects.delete(victim.id)).id == other.id
    assert (await projects.delete(victim.id)).id == victim.id, "nobody's slug, so it is the id"


async def test_repositories_go_with_the_last_project_of_their_organization(
    projects: ProjectService, identity: IdentityService, database: Database, admin: Identity
) -> None:
    _, organization = await identity.create_project("first", organization_slug="shared")
    await identity.create_project("second", organization_slug="shared")
    await database.write(_fill_repository, organization.id)

    async def left() -> int | None:
        return await database.read(lambda conn: conn.execute(text("SELECT count(*) FROM repositories")).scalar())

    await projects.delete("first")
    await projects.purge(0.0)
    assert await left() == 1
    await projects.delete("second")
    await projects.purge(0.0)
    assert await left() == 0


async def test_admins_rename_and_delete_projects_over_the_api(platform: Platform) -> None:
    headers = {"Authorization": f"Bearer {platform.admin_key}"}
    async with httpx.AsyncClient(base_url=platform.base_url, headers=headers) as client:
        await client.post("/v1/projects", json={"slug": "team"})
        key = (await client.post("/v1/api-keys", json={"name": "theirs", "project": "team"})).json()["key"]
        renamed = await client.patch("/v1/projects/team", json={"name": "The Team"})
        assert (renamed.json()["slug"], renamed.json()["name"]) == ("team", "The Team")
        assert (await client.delete("/v1/projects/default")).status_code == 409
        deleted = await client.delete(f"/v1/projects/{renamed.json()['id']}")
        assert deleted.json() == {"object": "project", "id": renamed.json()["id"], "slug": "team", "deleted": True}
        theirs = await client.get("/v3/whoami", headers={"Authorization": f"Bearer {key}"})
        assert theirs.status_code == 401
        assert (await client.delete("/v1/projects/team")).status_code == 404
        events = (await client.get("/v1/audit", params={"action": "project"})).json()["data"]
    assert [event["action"] for event in events] == ["project.delete", "project.rename", "project.create"]
    assert (events[1]["before"], events[1]["after"]) == ({"name": "team"}, {"name": "The Team"})
