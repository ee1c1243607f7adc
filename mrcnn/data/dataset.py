"""The Dataset class that training data derives from, with Matterport's public names."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from mrcnn.data.images import read_image
from mrcnn.files.errors import InputError


class Dataset:
    """Classes, images and instance masks of a data set.

    A subclass calls `add_class` and `add_image` for what it holds and overrides `load_mask`; then `prepare` gives
    classes and images their consecutive internal ids, from 0 on. Class 0 is always the background "BG".

    Args:
        class_map: dict source class id -> internal class id that `prepare` applies too (Matterport's argument, which it
            ignored). The object itself, as of `super().__init__(self)` in many scripts, counts as none.
    """

    # What `prepare` sets, and a subclass whose `__init__` sets Matterport's four attributes alone does not.
    _class_map: Mapping[str, int] = MappingProxyType({})
    _image_ids = np.zeros(0, np.int64)
    num_classes, num_images = 0, 0
    class_ids: Sequence[int] = ()
    class_names: Sequence[str] = ()
    sources: Sequence[str] = ()
    class_from_source_map: Mapping[str, int] = MappingProxyType({})
    image_from_source_map: Mapping[str, int] = MappingProxyType({})

    def __init__(self, class_map: Mapping[str, int] | None = None):
        self._class_map = {} if class_map is None or class_map is self else dict(class_map)
        self.class_info: list[dict[str, Any]] = [{"source": "", "id": 0, "name": "BG"}]
        self.image_info: list[dict[str, Any]] = []
        self.source_class_ids: dict[str, list[int]] = {}

    @property
    def image_ids(self) -> np.ndarray:
        """Internal ids of the images, int (num_images,): 0, 1, ... after `prepare`, or what `_image_ids` was set to."""
        return self._image_ids

    def add_class(self, source: str, class_id: int | str, class_name: str) -> None:
        """Register a class; adding the same `source` and `class_id` again changes nothing.

        Raises:
            ValueError: if `source` holds a ".", which separates source and id in the mapped names.
        """
        if "." in source:
            raise ValueError(f"source must not contain a dot, got {source!r}")
        if any(info["source"] == source and info["id"] == class_id for info in self.class_info):
            return
        self.class_info.append({"source": source, "id": class_id, "name": class_name})

    def add_image(self, source: str, image_id: Any, path: Any, **kwargs: Any) -> None:
        """Register an image; `kwargs` are kept in its `image_info` entry for `load_image` and `load_mask`."""
        self.image_info.append({"id": image_id, "source": source, "path": path, **kwargs})

    def image_reference(self, image_id: int) -> str:
        """Return a link or name that helps to find the image again; subclasses override it."""
        return ""

    def prepare(self, class_map: Mapping[str, int] | None = None) -> None:
        """Number classes and images consecutively; call it after the last `add_class` and `add_image`.

        `class_map` sends "source.id" to an internal class id, to let classes of several sources share one.
        """
        self.num_classes = len(self.class_info)
        self.class_ids = np.arange(self.num_classes)
        # COCO-like names such as "aeroplane, airplane" are cut at the first comma.
        self.class_names = [info["name"].split(",")[0].strip() for info in self.class_info]
        self.num_images = len(self.image_info)
        self._image_ids = np.arange(self.num_images)

        self.class_from_source_map = {f"{info['source']}.{info['id']}": i for i, info in enumerate(self.class_info)}
        for name, class_id in {**self._class_map, **(class_map or {})}.items():
            if not 0 <= class_id < self.num_classes:
                raise ValueError(f"class_map sends {name!r} to {class_id}, but there are {self.num_classes} classes")
            self.class_from_source_map[name] = int(class_id)
        self.image_from_source_map = {f"{info['source']}.{info['id']}": i for i, info in enumerate(self.image_info)}
        self.sources = list(dict.fromkeys(info["source"] for info in self.class_info))
        self.source_class_ids = {  # the background belongs to every source
            source: [i for i, info in enumerate(self.class_info) if i == 0 or info["source"] == source]
            for source in self.sources
        }

    def map_source_class_id(self, source_class_id: str) -> int:
        """Return the internal id of a class named "source.id", such as "coco.12"."""
        return self.class_from_source_map[source_class_id]

    def get_source_class_id(self, class_id: int, source: str) -> int | str:
        """Return the id that the class with internal id `class_id` has in `source`; ValueError if it is not of it."""
        info = self.class_info[class_id]
        if info["source"] != source:
            raise ValueError(f"class {class_id} is of source {info['source']!r}, not {source!r}")
        return info["id"]

    def source_image_link(self, image_id: int) -> Any:
        """Return the path of an image."""
        return self.image_info[image_id]["path"]

    def load_image(self, image_id: int) -> np.ndarray:
        """Return an image as RGB uint8 array of shape (height, width, 3).

        As in Matterport's class it is not turned by an orientation that the file notes (EXIF): masks made from the
        width and height of an annotation file fit it. `UprightDataset` turns it.
        """
        return read_image(self.image_info[image_id]["path"], upright=False)

    def load_mask(self, image_id: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the instance masks of an image; every trainable data set overrides this.

        An override may ask this method, by `super`, for the masks of an image without any instance.

        Returns:
            masks: bool array of shape (height, width, num_instances).
            class_ids: int32 array of shape (num_instances,).

        Raises:
            InputError: if it is not overridden, since a data set without masks cannot train anything.
        """
        if type(self).load_mask is Dataset.load_mask:
            raise InputError(
                f"{type(self).__name__} has no masks for {self.image_info[image_id]['path']}: "
                "override load_mask(image_id) in your Dataset class"
            )
        height, width = self.load_image(image_id).shape[:2]
        return np.zeros((height, width, 0), bool), np.zeros(0, np.int32)

    def load_parts(self, image_id: int) -> Mapping[str, np.ndarray]:
        """Return what is known of the parts of an image's instances, see `Config.MASK_PARTS`; nothing by default.

        An override gives for the name of a part, "nucleus" for instance, masks as `load_mask` does and in its order. A
        mask without a pixel says that this instance's part is not known.
        """
        return {}


class UprightDataset(Dataset):
    """A Dataset whose images are upright as viewers show them (EXIF), which is how people drew on them."""

    def load_image(self, image_id: int) -> np.ndarray:
        """Return an image as `read_image` gives it: RGB uint8 array of shape (height, width, 3)."""
        return read_image(self.image_info[image_id]["path"])


def image_name(dataset: Dataset, image_id: int) -> str:
    """What to call an image in a message: its file, its reference, or its id in the source."""
    info = dataset.image_info[image_id]
    return str(info.get("path") or dataset.image_reference(image_id) or f"image {info.get('id', image_id)}")
