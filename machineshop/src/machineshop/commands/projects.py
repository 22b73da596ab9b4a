"""`machineshop projects`: make, list, rename and delete projects."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from machineshop.commands.options import DataDirOption, JsonOption, print_table, with_identity
from machineshop.models import Organization, Project

if TYPE_CHECKING:
    from machineshop.store.database import Database


def create_project(
    slug: str,
    *,
    name: str | None = None,
    organization: str | None = None,
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a project. Its first key is made by `machineshop keys create --project`.

    Args:
        slug: Its name in commands and URLs.
        name: Its name for people [the slug].
        organization: The slug of the organization that it belongs to, made if there is none [one of its own]. Projects
            of an organization share a namespace of the registry, and its admins.
    """
    made = with_identity(data_dir, lambda service: service.create_project(slug, name, organization_slug=organization))
    print(json.dumps(_project_view(*made)) if as_json else f"{made[0].slug} is made, in organization {made[1].slug}")


def list_projects(*, data_dir: DataDirOption = None, as_json: JsonOption = False) -> None:
    """List the projects of all organizations."""
    found = with_identity(data_dir, lambda service: service.list_projects())
    if as_json:
        print(json.dumps([_project_view(*one) for one in found]))
        return
    from rich.table import Table  # noqa: PLC0415 - as `commands` says

    table = Table("PROJECT", "NAME", "ORGANIZATION", "ID", box=None, pad_edge=False)
    for project, organization in found:
        table.add_row(project.slug, project.name, organization.slug, project.id)
    print_table(table)


def rename_project(project: str, name: str, *, data_dir: DataDirOption = None) -> None:
    """Give a project another name for people; its slug stays.

    Args:
        project: Its slug or id.
        name: The new name.
    """
    from machineshop.commands.on_store import on_store  # noqa: PLC0415 - as `commands` says
    from machineshop.services.projects import ProjectService  # noqa: PLC0415 - as `commands` says

    renamed = on_store(data_dir, lambda database: ProjectService(database).rename(project, name))
    print(f"{renamed.slug} (id {renamed.id}) is called {renamed.name} now")


def delete_project(project: str, *, data_dir: DataDirOption = None) -> None:
    """Delete a project with its keys, jobs, files, secrets and volumes; a running server takes them away in minutes.

    It is refused while the project has deployments. With the last project of an organization its repositories go too.

    Args:
        project: Its slug or id.
    """
    from machineshop.commands.on_store import on_store  # noqa: PLC0415 - as `commands` says
    from machineshop.services.projects import ProjectService  # noqa: PLC0415 - as `commands` says

    async def delete(database: Database) -> Project:
        projects = ProjectService(database)
        gone = await projects.delete(project)
        await projects.purge(0.0)
        return gone

    gone = on_store(data_dir, delete)
    print(f"{gone.slug} (id {gone.id}) is deleted")


def _project_view(project: Project, organization: Organization) -> dict[str, Any]:
    return {"id": project.id, "slug": project.slug, "name": project.name, "organization": organization.slug}
