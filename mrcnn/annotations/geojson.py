"""GeoJSON as QuPath exports it: for each image a file of its name, with a Feature for each object.

Coordinates are pixels of the whole image. Tiles, the cores of tissue arrays and, beside objects of the type "cell",
annotations without a class are regions and not cells; they are left out. The `nucleusGeometry` of a cell is an object
of its own.

Reference:
    RFC 7946; QuPath's classes PathObjectTypeAdapters and GsonTools, which define properties and `nucleusGeometry`
"""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from mrcnn.annotations.faults import Fault, expect, shorten
from mrcnn.annotations.shapes import Annotations, OutlinedImage, OutlinedObject, Shape, make_polygon
from mrcnn.files.errors import InputError

REGIONS = ("tile", "tma_core", "root")


def is_geojson(value: Any) -> bool:
    """Whether the value of a JSON file looks like a FeatureCollection, or a list of features as older QuPath has it."""
    if isinstance(value, list):
        return bool(value) and isinstance(value[0], dict) and value[0].get("type") == "Feature"
    return isinstance(value, dict) and value.get("type") == "FeatureCollection"


def parse_geojson(value: Any, source: Path) -> Annotations:
    """Turn the JSON value of a GeoJSON file into annotations of one image; InputError if it is none."""
    features = value.get("features") if isinstance(value, dict) else value
    if not is_geojson(value) or not isinstance(features, list):
        raise InputError(f"{source}: not a GeoJSON file: neither a FeatureCollection nor a list of features")
    image = OutlinedImage(source.stem, source)
    has_cells = any(_object_type(feature) == "cell" for feature in features)
    for number, feature in enumerate(features, 1):
        kind = _object_type(feature)
        thing = OutlinedObject.read(f"feature {number}", feature, _read_label, partial(_read_shapes, "geometry"))
        if kind in REGIONS or (has_cells and kind == "annotation" and thing.label == ""):
            continue
        image.objects.append(thing)
        if isinstance(feature, dict) and feature.get("nucleusGeometry") is not None:
            name, read_shapes = f"nucleus of feature {number}", partial(_read_shapes, "nucleusGeometry")
            image.objects.append(OutlinedObject.read(name, feature, _read_label, read_shapes, is_nucleus=True))
    return Annotations("geojson", [source], [image])


def _properties(feature: dict[str, Any]) -> dict[str, Any]:
    return expect(feature.get("properties") or {}, dict, "properties")


def _object_type(feature: Any) -> Any:
    properties = feature.get("properties") if isinstance(feature, dict) else None
    return properties.get("objectType") if isinstance(properties, dict) else None


def _read_label(feature: dict[str, Any]) -> str:
    classification = expect(_properties(feature).get("classification") or {}, dict, "classification")
    names = classification.get("names")  # from version 0.6 on, the parts of a name such as "Tumor: Positive"
    if isinstance(names, list):
        return ": ".join(expect(name, str, "a name of the classification") for name in names)
    return expect(classification.get("name", ""), str, "name of the classification")


def _read_shapes(member: str, feature: dict[str, Any]) -> tuple[Shape, ...]:
    geometry = expect(feature.get(member), dict, member)
    kind, polygons = geometry.get("type"), expect(geometry.get("coordinates"), list, "coordinates")
    if kind not in ("Polygon", "MultiPolygon"):
        raise Fault(f"geometry {shorten(kind)} is unknown or encloses nothing; draw a polygon")
    return tuple(_make_polygon(rings) for rings in (polygons if kind == "MultiPolygon" else [polygons]))


def _make_polygon(rings: Any) -> Shape:
    """Make a polygon of its outline and those of its holes, which end where they begin."""
    rings = [
        [expect(point, list, "a point") for point in expect(ring, list, "ring")]
        for ring in expect(rings, list, "polygon")
    ]
    if not rings or any(len(point) < 2 for ring in rings for point in ring):
        raise Fault("polygon without an outline, or a point without 2 coordinates")
    outline, *holes = (make_polygon([point[0] for point in ring], [point[1] for point in ring]) for ring in rings)

    def fill(height: int, width: int) -> np.ndarray:
        mask = outline.fill(height, width)
        for hole in holes:
            mask &= ~hole.fill(height, width)
        return mask

    return Shape(outline.points, fill)
