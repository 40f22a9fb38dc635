"""The lake: the folder or bucket that has the Delta tables of all pipelines, and the small files beside them.

Delta and Arrow are imported when a table is used. All code locations import this module, because one place builds the
resources of all, and most of them have no table: each needs 70 MB less without Delta, and starts no thread.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg

from dedp_assets.errors import SettingError
from dedp_assets.resources import object_store

if TYPE_CHECKING:
    import pyarrow as pa
    from deltalake import DeltaTable

    from dedp_assets.delta.log import DeltaLog

# deltalake takes the folder `a%20b` for `a b` and `a\b` for `a/b`. It fails at the other characters.
_UNUSABLE_IN_FOLDER = re.compile(r"%[0-9A-Fa-f]{2}|[\\\[\]^|\x00-\x1f\x7f]")
# deltalake takes s3://bucket/a#1 for s3://bucket/a.
_UNUSABLE_IN_URI = re.compile(r"[?#]")


class LakeResource(dg.ConfigurableResource[Any]):
    """The Delta tables below `uri`. `resources_from_settings` has the resource that follows the settings.

    A table is found by its asset key: the last part of the key is its folder.

    To write a table, open it here and give it to deltalake: `write_deltalake(lake.open_or_create(...), rows)`.

    Attributes:
        uri: a folder, or the URI of an object store such as `s3://bucket/lake`.
    """

    uri: str | None = None

    def address(self) -> str:
        """Return the folder or URI as it was given. Raises SettingError if `uri` is not given."""
        if self.uri is None:
            raise SettingError("the resource for the lake has no address; give it a `uri`, or use DEDP_DATA_URI")
        return self.uri

    def place(self) -> str:
        """The folder or URI that has the tables, without a slash at its end.

        Raises:
            SettingError: deltalake would not write a table there, or would write it to another place.
        """
        lake = _normalized(self.address())
        unusable = (_UNUSABLE_IN_URI if "://" in lake else _UNUSABLE_IN_FOLDER).search(lake)
        if unusable:
            raise SettingError(
                f"the Delta tables should be in {lake}, but deltalake can't use that because of the {unusable[0]!r}; "
                "set DEDP_DATA_URI to a place without it"
            )
        return lake

    def table_uri(self, key: dg.AssetKey) -> str:
        """Where the table of an asset is. A small file of an asset begins with the same name.

        Raises:
            SettingError: see `place`.
        """
        return f"{self.place()}/{key.path[-1]}"

    def storage_options(self) -> dict[str, str]:
        """What delta-rs needs to reach the lake; empty for a folder. This holds secrets: never log it.

        Raises:
            SettingError: the kind of store is not supported, or a variable of the store has an impossible value.
        """
        return object_store.storage_options(self.place())

    def open_log(self, key: dg.AssetKey, partition_column: str) -> "DeltaLog":
        """The log of the table of an asset. Nothing is read yet, and the table need not exist.

        Args:
            key: the asset.
            partition_column: the one column that the table is partitioned by. Its type must be date or string.
        """
        from dedp_assets.delta.log import DeltaLog

        return DeltaLog(self.table_uri(key), self.storage_options(), partition_column)

    def open_table(self, key: dg.AssetKey) -> "DeltaTable | None":
        """The latest version of the table of an asset, or None if there is no table.

        Raises:
            TableUnreachable: the table can't be read.
        """
        from deltalake import DeltaTable

        from dedp_assets.delta.problems import named_problems

        uri, options = self.table_uri(key), self.storage_options()
        with named_problems(uri):
            return DeltaTable(uri, storage_options=options) if DeltaTable.is_deltatable(uri, options) else None

    def open_or_create(self, key: dg.AssetKey, schema: "pa.Schema", partition_by: Sequence[str] = ()) -> "DeltaTable":
        """The latest version of the table of an asset. Creates an empty table if there is none.

        Args:
            key: the asset.
            schema: the schema of a new table. An existing table keeps its own.
            partition_by: the names of a new table's partition columns.

        Raises:
            TableUnreachable: the table can't be read or created.
        """
        from deltalake import DeltaTable

        from dedp_assets.delta.creation import create_if_missing
        from dedp_assets.delta.problems import named_problems

        uri, options = self.table_uri(key), self.storage_options()
        create_if_missing(uri, schema, options, list(partition_by))
        with named_problems(uri):
            return DeltaTable(uri, storage_options=options)


def _normalized(uri: str) -> str:
    if "://" in uri and not uri.startswith("file://"):
        return uri.rstrip("/")
    return str(Path(uri.removeprefix("file://")).expanduser().resolve())
