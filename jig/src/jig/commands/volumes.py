"""Files that replicas read: `jig volumes create`, `update`, `delete`, `describe` and `list`."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from cyclopts.types import NonNegativeInt

from jig.bundle.packed import leave_out_hint, packed_path
from jig.client import Client
from jig.config.file import JIG_FILE, find_config, place_of_tables
from jig.errors import ConfigError, UsageError, VolumeError
from jig.options import PROJECT_DEFAULTS, ProjectGlobals, Yes
from jig.rights import check_may_change
from jig.session import Session
from jig.units import count, size
from jig.volumes import remote
from jig.volumes.publish import Publisher
from jig.volumes.s3 import SCHEME, follow
from jig.volumes.upload import forget_uploads
from jig.volumes.view import description, listing, version_of

FILES_SHOWN = 20
SOURCE = "A folder to upload, or s3://bucket/prefix to fetch from."
ROLE = "The IAM role that may read an s3:// source."
CREDENTIALS = "The secret that holds the keys of an s3:// source."
WATCH = "Wait until an s3:// source is fetched."

VolumeName = Annotated[str, Parameter(name="--name", help="The volume.")]
SourceOption = Annotated[str, Parameter(name="--source", help=SOURCE)]
RoleArn = Annotated[str | None, Parameter(name="--aws-oidc-role-arn", help=ROLE)]
CredentialsSecret = Annotated[str | None, Parameter(help=CREDENTIALS)]
Watch = Annotated[bool, Parameter(negative=(), show_default=False, help=WATCH)]
VolumeVersion = Annotated[
    NonNegativeInt | None,
    Parameter(name=("--volume-version", "--version"), help="Tell of this one. [default: the latest]"),
]


def create(
    name: VolumeName,
    source: SourceOption,
    *,
    aws_oidc_role_arn: RoleArn = None,
    credentials_secret: CredentialsSecret = None,
    watch: Watch = False,
    options: ProjectGlobals = PROJECT_DEFAULTS,
) -> None:
    """Make a volume of a folder, or of what is in S3. Interrupted, the same command goes on."""
    session = Session(options)
    remote.check_name(name)
    if source.startswith(SCHEME):
        content = remote.from_s3(source, aws_oidc_role_arn, credentials_secret)
        volume = remote.create(session.client, name, content)
        if volume is None:
            hint = f"To fetch a new version of it: jig volumes update {name} {source}"
            raise VolumeError(f"The volume {name} already exists.", hint=hint)
        fetched(session, volume, watch=watch)
        return
    folder = checked_folder(source, aws_oidc_role_arn, credentials_secret, watch=watch)
    check_may_change(session.client)
    uploaded(session, folder, Publisher(session.client, session.output, name).create(folder))


def update(
    name: VolumeName,
    source: SourceOption,
    *,
    aws_oidc_role_arn: RoleArn = None,
    credentials_secret: CredentialsSecret = None,
    watch: Watch = False,
    options: ProjectGlobals = PROJECT_DEFAULTS,
) -> None:
    """Make a volume's next version. What the platform has already is not sent again."""
    session = Session(options)
    if source.startswith(SCHEME):
        remote.check_updatable(remote.needed(session.client, name))
        volume = remote.change(session.client, name, remote.from_s3(source, aws_oidc_role_arn, credentials_secret))
        fetched(session, volume, watch=watch)
        return
    folder = checked_folder(source, aws_oidc_role_arn, credentials_secret, watch=watch)
    check_may_change(session.client)
    uploaded(session, folder, Publisher(session.client, session.output, name).update(folder))


def delete(name: VolumeName, *, yes: Yes = False, options: ProjectGlobals = PROJECT_DEFAULTS) -> None:
    """Delete a volume with all its versions."""
    session = Session(options)
    volume = remote.get(session.client, name)
    versions = count(int(volume["current_version"]) + 1, "version")
    session.confirm(f"Delete {name} with its {versions}?", yes=yes)
    answer = session.client.delete(remote.path_of(name))
    forget_uploads(session.client, str(volume["id"]))
    session.output.result(answer, f"{name} is deleted.")


def describe(
    name: VolumeName,
    *,
    volume_version: VolumeVersion = None,
    files: Annotated[int, Parameter(help="List so many files at most.")] = FILES_SHOWN,
    options: ProjectGlobals = PROJECT_DEFAULTS,
) -> None:
    """Show a volume: its status, its files, its versions, and who mounts it."""
    if files < 0:
        raise UsageError(f"--files must be at least 0, not {files}.")
    session = Session(options)
    volume = remote.get(session.client, name, volume_version)
    names = {} if session.output.json else deployment_names(session.client, volume)
    session.output.result(volume, description(volume, names, files, datetime.now(UTC)))


def list_volumes(*, options: ProjectGlobals = PROJECT_DEFAULTS) -> None:
    """List the project's volumes."""
    session = Session(options)
    answer = session.client.get(remote.VOLUMES)
    session.output.result(answer, listing(answer["data"], datetime.now(UTC)))


def checked_folder(source: str, role_arn: str | None, credentials_secret: str | None, *, watch: bool) -> Path:
    """The folder to upload.

    Raises:
        UsageError: it is none, or there are options that are about S3.
    """
    if role_arn or credentials_secret or watch:
        raise UsageError("--aws-oidc-role-arn, --credentials-secret and --watch are about an s3:// source.")
    folder = Path(source)
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise UsageError(f"{source} {what}.", hint="Name a folder, whose files become the volume's.")
    return folder


def uploaded(session: Session, folder: Path, document: dict[str, Any]) -> None:
    """Say what an upload of a folder came to, and what is next."""
    volume = document["volume"]
    name, version = volume["name"], version_of(volume)
    if not document["changed"]:
        files = count(document["files_count"], "file")
        session.output.result(document, f"Nothing has changed: version {version} of {name} holds the same {files}.")
        return
    sent = f"{count(document['sent_files'], 'file')} sent, {size(document['sent_bytes'])}"
    if resumed_bytes := document["resumed_bytes"]:
        sent += f" ({size(resumed_bytes)} had arrived before)"
    session.output.result(document, f"{name} has version {version}: {count(document['files_count'], 'file')}, {sent}.")
    session.output.note(mount_hint(session, name, version))
    if path := packed_with_project(session, folder):
        session.output.warn(leave_out_hint(path))


def packed_with_project(session: Session, folder: Path) -> str | None:
    """The folder's path in this project, if a deploy packs it too; a volume needs no project, nor a right one."""
    try:
        return packed_path(find_config(session.chosen_config), folder)
    except ConfigError:
        return None


def fetched(session: Session, volume: remote.Volume, *, watch: bool) -> None:
    """Wait for what the platform fetches, or say how to look at it."""
    name, version = str(volume["name"]), version_of(volume)
    if not watch:
        text = f"{name} has version {version}, which is being fetched. See how it goes: jig volumes describe {name}"
        session.output.result({"volume": volume}, text)
        return
    volume = follow(session.client, session.output, name, version)
    session.output.result({"volume": volume}, f"{name} has version {version}.")
    session.output.note(mount_hint(session, name, version))


def mount_hint(session: Session, name: str, version: int) -> str:
    """How a deployment gets to see a version; one that mounts the volume keeps its own where none is said."""
    try:
        file, prefix = place_of_tables(session.chosen_config)
    except ConfigError:  # the volume is there all the same
        file, prefix = JIG_FILE, ""
    lines = [f"[[{prefix}deploy.volume_mounts]]", f'name = "{name}"', f'mount_path = "/{name}"']
    lines += [f"version = {version}"] if version else []
    return "\n  ".join([f"Mount it, in {file}:", *lines])


def deployment_names(client: Client, volume: remote.Volume) -> dict[str, str]:
    """The names of deployments by their IDs, where any mounts the volume."""
    versions = [volume, *(volume.get("version_history") or {}).values()]
    if not any(each.get("mounted_by") for each in versions):
        return {}
    return {each["id"]: each["name"] for each in client.get("/v1/deployments")["data"]}
