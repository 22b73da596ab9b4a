"""Files that were stored for a version of a volume before it was made: clients upload first, and make it then.

They become the version's some at a time, since 200,000 at once would keep the store's writer from everybody else. What
a crash cuts off goes on before the version is sealed (`volume_checks`), or copied.
"""

from machineshop.models import Volume
from machineshop.services.leftovers import Leftovers
from machineshop.store import volume_files
from machineshop.store.database import Database

# So many keep the store's writer from others for some milliseconds.
AT_A_TIME = 250
# Names, of which each look may have to go through all files of the project: a megabyte.
READ_AT_ONCE = 10_000


async def adopt(database: Database, volume: Volume, number: int) -> None:
    """Make all files that were stored for a version before it was made the version's, as long as it takes files."""
    after = ""
    while names := await database.read(volume_files.loose, volume.project_id, volume.name, number, after, READ_AT_ONCE):
        for at in range(0, len(names), AT_A_TIME):
            if not await database.write(volume_files.adopt, volume, number, names[at : at + AT_A_TIME]):
                return
        after = names[-1]


async def clear(database: Database, leftovers: Leftovers, volume: Volume, number: int) -> None:
    """Remove what was uploaded for a version that has just been made, and is copied instead."""
    await adopt(database, volume, number)
    while keys := await database.write(volume_files.remove_uploaded, volume.id, number, AT_A_TIME):
        await leftovers.remove(keys)
