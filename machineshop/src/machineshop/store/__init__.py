"""Rows: tables, migrations, one file per resource."""
