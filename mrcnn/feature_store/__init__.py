"""The feature store, the HDF5 file between the two stages: its public names. It needs h5py and NumPy alone."""

from mrcnn.feature_store.layout import ARRAY_FIELDS, UNREADABLE, Cell, is_unreadable
from mrcnn.feature_store.reader import FeatureStore
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

StoreReader = FeatureStore  # an earlier name

__all__ = [
    "ARRAY_FIELDS",
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
