import base64
import gzip
import json
import re

import numpy as np
import pandas as pd

from experiments.reports.interactive_map import Plane, interactive_maps
from experiments.reports.page import crop_jpeg

HOSTILE = "</script><script>alert(1)</script><!-- \" ' & \u2028 é @crop{safe} $x $$\\sum$$"
CENTRES = ["north", "river"]


def make_cells(**changes):
    """Four cells, every other one without type, score, crop and flags."""
    crop = crop_jpeg(np.full((128, 128, 3), 90, np.uint8))
    texts = {"centre": ["river", "north"], "cell_type": ["monocyte", ""], "flags": ["low score: 0.70", ""]}
    values = {**texts, "image_id": ["0.png", "1.png"], "score": [0.876, np.nan], "crop": [crop, b""]}
    return pd.DataFrame({name: (two * 2) for name, two in values.items()}).assign(**changes)


def content_of(text):
    """The data of plots, the columns that hovering shows, and the rows of each group that is drawn."""
    block = json.loads(text)
    (source,) = attributes_of(block, "ColumnDataSource")
    indices = [found["indices"] for found in attributes_of(block, "IndexFilter")]
    return block, {key: decode(value) for key, value in source["data"]["entries"]}, indices


def attributes_of(value, name):
    """Attributes of all objects of a kind in Bokeh's JSON."""
    if isinstance(value, dict):
        own = [value["attributes"]] if value.get("name") == name and "attributes" in value else []
        return own + [found for item in value.values() for found in attributes_of(item, name)]
    return [found for item in value for found in attributes_of(item, name)] if isinstance(value, list) else []


def decode(value):
    if isinstance(value, dict):
        return np.frombuffer(gzip.decompress(base64.b64decode(value["array"]["data"])), value["dtype"]).tolist()
    return value


def test_interactive_maps_keep_one_copy_of_the_cells_for_all_plots():
    planes = [Plane("Map", np.arange(8.0).reshape(4, 2)), Plane("Score", np.zeros((4, 2)), ("x", "y"), 0.5)]
    plots, data = interactive_maps("map", make_cells(), planes, CENTRES)
    block, columns, indices = content_of(data)
    assert plots[:2] == [{"title": "Map by centre", "id": "map-1"}, {"title": "Map by cell type", "id": "map-2"}]
    assert sorted(block["items"][0]["roots"].values()) == ["map-1", "map-2", "map-3", "map-4"]
    assert columns["x0"] == [0, 2, 4, 6] and columns["y1"] == [0, 0, 0, 0]
    assert columns["score"] == ["0.88", "–"] * 2 and columns["type"] == ["monocyte", "no type"] * 2
    assert columns["flags"] == ["low score: 0.70", "nothing odd"] * 2 and columns["edge"] == [1, 0, 1, 0]
    # Centres in the order that was asked for; cells without a type come last.
    assert indices == [[1, 3], [0, 2], [0, 2], [1, 3]] * 2
    # The two plots of a plane move together.
    one, other, *_ = attributes_of(block, "Figure")
    assert one["x_range"]["id"] == other["x_range"]["id"] and one["y_range"]["id"] == other["y_range"]["id"]
    assert interactive_maps("map", make_cells(), planes, CENTRES) == (plots, data)


def test_interactive_maps_leave_out_points_that_are_not_known():
    plane = Plane("", np.array([[0, 1], [np.nan, np.nan], [2, 3], [4, 5]]))
    assert content_of(interactive_maps("map", make_cells(), [plane], CENTRES)[1])[2] == [[3], [0, 2], [0, 2], [3]]


def test_interactive_maps_show_names_as_data_alone():
    cells = make_cells(centre=HOSTILE, cell_type=HOSTILE, image_id=HOSTILE, flags=HOSTILE)
    _, text = interactive_maps("map", cells, [Plane("all", np.zeros((4, 2)))], [HOSTILE])
    block, columns, _ = content_of(text)
    assert not set("<>&\u2028") & set(text)
    # Legends and tooltips get the very name, or its beginning.
    assert columns["flags"] == [HOSTILE] * 4
    assert columns["file"][0] == f"…{HOSTILE[-59:]}" and columns["type"][0] == f"{HOSTILE[:59]}…"
    # Whatever is marked safe is made here, and stands in a field of its own.
    hover = attributes_of(block, "HoverTool")[0]
    assert [field for field, text in hover["tooltips"] if "safe" in text or "<" in text] == ["cell"]
    assert re.findall(r"[@$]\w+", dict(hover["tooltips"])["cell"]) == ["@crop"]
    assert all(re.fullmatch(r"(data:image/jpeg;base64,[A-Za-z0-9+/=]+)?", address) for address in columns["crop"])
