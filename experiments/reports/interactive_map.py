"""Scatter plots that answer the mouse: hovering shows a cell, a click on the legend hides a group.

The plots are drawn by BokehJS, which is put into the page itself, so that a page needs no network. Names of files,
centres and types come from other people's folders. They reach the page as data alone: tooltips show them as text, and
the only markup in a tooltip is the picture, whose address is made here. A string for a whole tooltip would not do: as
soon as one of its fields is marked safe, Bokeh takes the text of all others as markup too.
"""

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from experiments.figures.style import GREY, INK, group_style

SHOWN_SIDE = 112  # px of a crop in a tooltip
PLOT_HEIGHT = 400
LEGEND_COLUMNS = 3
# Characters of a name in a legend, and of a text in a tooltip, which is as wide as its longest line.
MAX_LABEL, MAX_TEXT = 24, 60

# Bokeh's names of matplotlib's markers.
_MARKERS = dict(zip("o^sDvPX*", "circle triangle square diamond inverted_triangle plus hex star".split(), strict=True))
# The page's policy knows this text by its hash: it must not depend on what the page shows.
_LOADER = """
for (const block of document.querySelectorAll("script.map-data")) {
  const {documents, items} = JSON.parse(block.textContent);
  Bokeh.embed.embed_items(documents, items);
}
"""


@dataclass(frozen=True)
class MapCells:
    """What hovering shows of each of n cells: as the store names them, "" for no type, NaN for no score.

    Crops are JPEGs, or b"" where there is none; flags say why a cell is worth a look, None if nothing was looked for.
    """

    centres: Sequence[str]
    types: Sequence[str]
    files: Sequence[str]
    scores: Sequence[float] | np.ndarray
    crops: Sequence[bytes]
    flags: Sequence[str] | None = None


@dataclass(frozen=True)
class Panel:
    """One plot of the cells.

    Attributes:
        title: what the plot shows.
        points: float array of shape (n, 2); rows with NaN are not drawn. Panels that have the same array move together.
        groups: the group of each cell, which is its colour; "" is drawn grey as "no type".
        order: groups in the order of the legend.
        axes: names of x and y, or None for a map, whose numbers mean nothing.
        level: y of a dashed line, or None.
    """

    title: str
    points: np.ndarray
    groups: Sequence[str]
    order: Sequence[str]
    axes: tuple[str, str] | None = None
    level: float | None = None


def interactive_maps(anchor: str, cells: MapCells, panels: Sequence[Panel]) -> tuple[list[dict[str, str]], str]:
    """Make plots of the same cells; the page keeps one copy of what hovering shows.

    Args:
        anchor: begins the ids of the elements, unique in the page.
        cells: what is drawn.
        panels: the plots, each of one point and one group for each cell.

    Returns:
        Title and id of each plot, for the page's macro `plots`; and their data, JSON without <, > and &, for its macro
        `map_data`. The same cells give the same text.
    """
    from bokeh.document import Document

    document = Document()
    for figure in _figures(cells, panels):
        document.add_root(figure)
    plots = [{"title": panel.title, "id": f"{anchor}-{number}"} for number, panel in enumerate(panels, 1)]
    ids = {root.id: plot["id"] for root, plot in zip(document.roots, plots, strict=True)}
    block = {
        "documents": {anchor: document.to_json(deferred=False)},
        "items": [{"docid": anchor, "roots": ids, "root_ids": list(ids)}],
    }
    # Text in a script element ends at the first "</script", and "<!--" changes how it is read.
    text = json.dumps(_with_plain_ids(block), separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return plots, text


def page_scripts() -> tuple[str, ...]:
    """The programs that a page with plots needs."""
    from bokeh.resources import Resources

    # The core alone: without Bokeh's widgets, tables and formulas the page is a third as large.
    return (*Resources(mode="inline", components=["bokeh"], log_level="warn").js_raw, _LOADER)


def _figures(cells: MapCells, panels: Sequence[Panel]) -> list[Any]:
    from bokeh.models import ColumnDataSource

    flags = cells.flags if cells.flags is not None else [""] * len(cells.files)
    data: dict[str, Any] = {
        "centre": [_shortened(name) for name in cells.centres],
        "type": [_shortened(_readable(name)) for name in cells.types],
        # Files of a centre mostly differ in the end of their names.
        "file": [name if len(name) <= MAX_TEXT else f"…{name[1 - MAX_TEXT :]}" for name in map(str, cells.files)],
        "score": ["–" if np.isnan(score) else f"{score:.2f}" for score in cells.scores],
        "crop": [f"data:image/jpeg;base64,{base64.b64encode(c).decode('ascii')}" if c else "" for c in cells.crops],
        "flags": [_shortened(text or "nothing odd", 3 * MAX_TEXT) for text in flags],
        "edge": np.array([1.0 if text else 0.0 for text in flags], np.float32),
    }
    for number, panel in enumerate(panels):
        data[f"x{number}"], data[f"y{number}"] = np.asarray(panel.points, np.float32).T.copy()
    source = ColumnDataSource(data)
    figures: list[Any] = []
    for number, panel in enumerate(panels):
        twin = next((f for f, other in zip(figures, panels, strict=False) if other.points is panel.points), None)
        figures.append(_figure(source, panel, number, twin, with_flags=cells.flags is not None))
    return figures


def _figure(source: Any, panel: Panel, number: int, twin: Any, *, with_flags: bool) -> Any:
    from bokeh.models import BoxZoomTool, HoverTool, PanTool, ResetTool, Span, WheelZoomTool
    from bokeh.plotting import figure

    fields = [("centre", "@centre"), ("type", "@type"), ("file", "@file"), ("score", "@score")]
    fields += [("look at", "@flags")] if with_flags else []
    picture = f'<img src="@crop{{safe}}" width="{SHOWN_SIDE}" height="{SHOWN_SIDE}" alt="no picture">'
    # Of cells on one spot the first: a pile of pictures would cover the plot.
    hover = HoverTool(tooltips=[("cell", picture), *fields], limit=1)
    tools = [PanTool(), BoxZoomTool(), WheelZoomTool(), ResetTool(), hover]
    plain = {"background_fill_color": None, "border_fill_color": None, "outline_line_color": "#d8dee4"}
    ranges = {} if twin is None else {"x_range": twin.x_range, "y_range": twin.y_range}
    plot = figure(height=PLOT_HEIGHT, sizing_mode="stretch_width", tools=tools, **plain, **ranges)
    plot.toolbar_location = "above"
    plot.toolbar.logo = None  # a link to another place
    plot.grid.grid_line_color = "#e3e7eb"
    _add_groups(plot, source, panel, number)
    if panel.axes is None:
        plot.axis.visible = plot.grid.visible = False
    else:
        plot.xaxis.axis_label, plot.yaxis.axis_label = panel.axes
        plot.axis.axis_label_text_font_style = "normal"
        plot.axis.axis_label_text_color = INK
    if panel.level is not None:
        plot.add_layout(Span(location=panel.level, dimension="width", line_color=GREY, line_dash="dashed"))
    return plot


def _add_groups(plot: Any, source: Any, panel: Panel, number: int) -> None:
    from bokeh.models import CDSView, IndexFilter, Legend, LegendItem

    names = np.asarray(panel.groups, str)
    drawn = np.isfinite(panel.points).all(axis=1)
    size = float(np.clip(160 / np.sqrt(max(int(drawn.sum()), 1)), 5, 9))
    styles = [(name, *group_style(i)) for i, name in enumerate(name for name in panel.order if name)]
    edges = source.data["edge"]
    items = []
    for name, color, marker in [*styles, ("", GREY, "o")]:
        rows = np.flatnonzero((names == name) & drawn)
        if not len(rows):
            continue
        view = CDSView(filter=IndexFilter(indices=rows.tolist()))
        look = {"marker": _MARKERS[marker], "size": size, "fill_color": color, "fill_alpha": 0.7}
        ring = {"line_color": "#000000", "line_alpha": "edge", "line_width": 1.6}
        renderer = plot.scatter(f"x{number}", f"y{number}", source=source, view=view, **look, **ring)
        # The legend draws a cell of the group, if there is one then without a ring.
        example = int(rows[np.argmin(edges[rows])])
        label = {"value": _shortened(_readable(name), MAX_LABEL)}
        items.append(LegendItem(label=label, renderers=[renderer], index=example))
    text = {"label_text_font_size": "12px", "label_text_color": INK}
    sizes = {"padding": 0, "spacing": 2, "label_height": 14, "glyph_height": 16, "glyph_width": 16}
    plain = {"border_line_color": None, "background_fill_color": None}
    place = {"location": "top_left", "ncols": LEGEND_COLUMNS}
    plot.add_layout(Legend(items=items, click_policy="hide", **place, **text, **sizes, **plain), "below")
    plot.height = PLOT_HEIGHT + 20 * -(-len(items) // LEGEND_COLUMNS)


def _readable(name: str) -> str:
    return str(name).replace("_", " ") or "no type"


def _shortened(text: str, length: int = MAX_TEXT) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"


def _with_plain_ids(block: dict[str, Any]) -> dict[str, Any]:
    """Number Bokeh's objects from 1 in the order of their mention; their own numbers go on through the process."""
    known: dict[str, str] = {}

    def plain(name: str) -> str:
        return known.setdefault(name, f"m{len(known) + 1}")

    def visit(value: Any) -> Any:
        if isinstance(value, dict):
            # Objects have ids; data are in lists, and no column of ours is called id.
            return {key: plain(item) if key == "id" else visit(item) for key, item in value.items()}
        return [visit(item) for item in value] if isinstance(value, (list, tuple)) else value

    documents = visit(block["documents"])
    for item in block["items"]:
        item["roots"] = {plain(root): element for root, element in item["roots"].items()}
        item["root_ids"] = list(item["roots"])
    return {"documents": documents, "items": block["items"]}
