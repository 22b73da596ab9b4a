"""Rows that are asked for by name or id."""

from typing import Any

from sqlalchemy import ColumnElement, Select, or_


def named(query: Select[Any], name: ColumnElement[str], id_: ColumnElement[str], wanted: str) -> Select[Any]:
    """The one row with this name; where there is none, the one with this id: a name may look like another one's id."""
    by_name_first = (name == wanted).desc()
    return query.where(or_(name == wanted, id_ == wanted)).order_by(by_name_first).limit(1)
