"""The feature store, the HDF5 file between the two stages: its public names.

`store_layout` says what is in the file and `store_checks` what is refused; `store_writer` writes it in `store_parts`,
`store_reader` reads it, `shards` and `store_shards` make one store of several. They need h5py and NumPy alone, and
nothing else knows the layout.
"""

from mrcnn.feature_store.layout import ARRAY_FIELDS, FORMAT, SCHEMA, UNREADABLE, Cell, is_unreadable
from mrcnn.feature_store.reader import FeatureStore, StoreReader
from mrcnn.feature_store.shards import (
    Shard,
    ShardedStore,
    StorePath,
    join_shards,
    merge_stores,
    open_store,
    shard_path,
    stores_by_centre,
)
from mrcnn.feature_store.writer import FeatureStoreWriter, clear_parts

__all__ = [
    "ARRAY_FIELDS",
    "FORMAT",
    "SCHEMA",
    "UNREADABLE",
    "Cell",
    "FeatureStore",
    "FeatureStoreWriter",
    "Shard",
    "ShardedStore",
    "StorePath",
    "StoreReader",
    "clear_parts",
    "is_unreadable",
    "join_shards",
    "merge_stores",
    "open_store",
    "shard_path",
    "stores_by_centre",
]
