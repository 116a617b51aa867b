"""The tables of the product, by their foreign keys."""

from sqlalchemy import MetaData, Table


def tables_of_workspaces(metadata: MetaData) -> list[Table]:
    """The tables with a foreign key to `workspaces`, directly or through another table."""
    reached = {"workspaces"}
    while True:
        more = {
            table.name
            for table in metadata.tables.values()
            if table.name not in reached
            and any(key.column.table.name in reached for key in table.foreign_keys)
        }
        if not more:
            return [metadata.tables[name] for name in sorted(reached - {"workspaces"})]
        reached |= more
