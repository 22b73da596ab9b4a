"""`machineshop doctor`: whether this machine has what the platform needs."""

import json
import os
import sys

from machineshop.commands.options import DataDirOption, JsonOption, path_of, print_table
from machineshop.config import DEFAULT_HOST, DEFAULT_PORT, default_data_dir


def doctor(
    *,
    data_dir: DataDirOption = None,
    host: str = DEFAULT_HOST,
    port: int = DEFAULT_PORT,
    as_json: JsonOption = False,
) -> None:
    """Check this machine for what the platform needs, and name the mend for what it lacks.

    Args:
        host: Where a server is to listen, as for `serve`.
        port: The port there, as for `serve`.
    """
    from machineshop.doctor import examine  # noqa: PLC0415 - as `commands` says

    storage_dir = path_of(os.environ.get("MACHINESHOP_STORAGE_DIR"))
    database_url = os.environ.get("MACHINESHOP_DATABASE_URL") or None
    storage_url = os.environ.get("MACHINESHOP_STORAGE_URL") or None
    folder = data_dir or default_data_dir()
    findings = list(examine(folder, storage_dir, database_url, storage_url, host, port))
    if as_json:
        print(json.dumps([{"name": f.name, "state": f.state, "detail": f.detail} for f in findings]))
    else:
        from rich.table import Table  # noqa: PLC0415 - as `commands` says

        table = Table(box=None, pad_edge=False, show_header=False)
        colors = {"ok": "green", "note": "yellow", "missing": "red"}
        for finding in findings:
            table.add_row(finding.name, f"[{colors[finding.state]}]{finding.state}[/]", finding.detail)
        print_table(table)
    if any(finding.state == "missing" for finding in findings):
        sys.exit(1)
