import base64
import gzip
import json
import re

import numpy as np

from experiments.reports.interactive_map import MapCells, Panel, interactive_maps, page_scripts
from experiments.reports.page import crop_jpeg

HOSTILE = "</script><script>alert(1)</script><!-- \" ' & \u2028 é @crop{safe} $x $$\\sum$$"


def make_cells(count=4, **changes):
    crop = crop_jpeg(np.full((128, 128, 3), 90, np.uint8))
    values = {
        "centres": ["river", "north"] * (count // 2),
        "types": ["monocyte", ""] * (count // 2),
        "files": [f"{row}.png" for row in range(count)],
        "scores": [0.876, np.nan] * (count // 2),
        "crops": [crop, b""] * (count // 2),
        "flags": ["low score: 0.70", ""] * (count // 2),
    }
    return MapCells(**(values | changes))


def content_of(text):
    """The data of plots, and the columns that hovering shows."""
    block = json.loads(text)
    (source,) = attributes_of(block, "ColumnDataSource")
    return block, {key: decode(value) for key, value in source["data"]["entries"]}


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


def indices_of(block):
    """Rows of each group that is drawn."""
    return [found["indices"] for found in attributes_of(block, "IndexFilter")]


def test_interactive_maps_keep_one_copy_of_the_cells_for_all_panels():
    cells, points = make_cells(), np.arange(8.0).reshape(4, 2)
    panels = [
        Panel("by centre", points, cells.centres, ["north", "river"]),
        Panel("by type", points, cells.types, ["monocyte"]),
    ]
    plots, data = interactive_maps("map", cells, panels)
    block, columns = content_of(data)
    assert plots == [{"title": "by centre", "id": "map-1"}, {"title": "by type", "id": "map-2"}]
    assert sorted(block["items"][0]["roots"].values()) == ["map-1", "map-2"]
    assert columns["x0"] == [0, 2, 4, 6] and columns["y1"] == [1, 3, 5, 7]
    assert columns["score"] == ["0.88", "–"] * 2 and columns["type"] == ["monocyte", "no type"] * 2
    assert columns["flags"] == ["low score: 0.70", "nothing odd"] * 2 and columns["edge"] == [1, 0, 1, 0]
    # By centre in the order that was asked for; cells without a type come last.
    assert indices_of(block) == [[1, 3], [0, 2], [0, 2], [1, 3]]
    # Panels of the same points move together.
    one, other = attributes_of(block, "Figure")
    assert one["x_range"]["id"] == other["x_range"]["id"] and one["y_range"]["id"] == other["y_range"]["id"]


def test_interactive_maps_leave_out_points_that_are_not_known():
    cells, points = make_cells(), np.array([[0, 1], [np.nan, np.nan], [2, 3], [4, 5]])
    _, data = interactive_maps("map", cells, [Panel("by centre", points, cells.centres, ["river", "north"])])
    assert indices_of(content_of(data)[0]) == [[0, 2], [3]]


def test_interactive_maps_show_names_as_data_alone():
    cells = make_cells(centres=[HOSTILE] * 4, types=[HOSTILE] * 4, files=[HOSTILE] * 4, flags=[HOSTILE] * 4)
    _, text = interactive_maps("map", cells, [Panel("all", np.zeros((4, 2)), cells.types, [HOSTILE])])
    block, columns = content_of(text)
    assert not set("<>&\u2028") & set(text)
    # Legends and tooltips get the very name, or its beginning.
    assert columns["flags"] == [HOSTILE] * 4
    assert columns["file"][0] == f"…{HOSTILE[-59:]}" and columns["type"][0] == f"{HOSTILE[:59]}…"
    # Whatever is marked safe is made here, and stands in a field of its own.
    (hover,) = attributes_of(block, "HoverTool")
    assert [field for field, text in hover["tooltips"] if "safe" in text or "<" in text] == ["cell"]
    assert re.findall(r"[@$]\w+", dict(hover["tooltips"])["cell"]) == ["@crop"]
    assert all(
        address == "" or re.fullmatch(r"data:image/jpeg;base64,[A-Za-z0-9+/=]+", address) for address in columns["crop"]
    )


def test_interactive_maps_are_the_same_every_time():
    cells = make_cells()
    panels = [Panel("all", np.zeros((4, 2)), cells.centres, ["river", "north"], ("x", "y"), 0.5)]
    assert interactive_maps("map", cells, panels) == interactive_maps("map", cells, panels)


def test_crop_jpeg_is_small():
    noise = np.random.default_rng(0).integers(0, 256, (128, 128, 3)).astype(np.uint8)
    assert crop_jpeg(noise).startswith(b"\xff\xd8") and len(crop_jpeg(noise)) < 4000


def test_page_scripts_are_small_and_end_no_script_element():
    scripts = page_scripts()
    assert len("".join(scripts)) < 2e6 and not any("</script" in text for text in scripts)
