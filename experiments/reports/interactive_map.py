"""Scatter plots that answer the mouse: hovering shows a cell, a click on the legend hides a group.

The plots are drawn by BokehJS, which is put into the page itself, so that a page needs no network. Names of files,
centres and types come from other people's folders. They reach the page as data alone: tooltips show them as text, and
the only markup in a tooltip is the picture, whose address is made here. A string for a whole tooltip would not do: as
soon as one of its fields is marked safe, Bokeh takes the text of all others as markup too.
"""

import base64
import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

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


class Plane(NamedTuple):
    """Where cells lie in two plots that move together, one coloured by centre, one by cell type.

    Attributes:
        title: begins those of the plots.
        points: float array of shape (n, 2); rows with NaN are not drawn.
        axes: names of x and y, or None for a map, whose numbers mean nothing.
        level: y of a dashed line, or None.
    """

    title: str
    points: np.ndarray
    axes: tuple[str, str] | None = None
    level: float | None = None


def interactive_maps(
    anchor: str, cells: pd.DataFrame, planes: Sequence[Plane], centres: Sequence[str]
) -> tuple[list[dict[str, str]], str]:
    """Make plots of the same cells; the page keeps one copy of what hovering shows.

    Args:
        anchor: begins the ids of the elements, unique in the page.
        cells: a row for each of n cells: centre, cell_type ("" for none), image_id, score (NaN for none), crop (a JPEG,
            or b""), and flags, why a cell is worth a look, if that was looked for.
        planes: each gives two plots.
        centres: in the order of the legend.

    Returns:
        Title and id of each plot, for the page's macro `plots`; and their data, JSON without <, > and &, for its macro
        `map_data`. The same cells give the same text.
    """
    from bokeh.document import Document
    from bokeh.models import ColumnDataSource

    flags = cells.get("flags", pd.Series("", cells.index))
    data: dict[str, Any] = {
        "centre": [_shortened(name) for name in cells["centre"]],
        "type": [_shortened(_readable(name)) for name in cells["cell_type"]],
        # Files of a centre mostly differ in the end of their names.
        "file": [name if len(name) <= MAX_TEXT else f"…{name[1 - MAX_TEXT :]}" for name in cells["image_id"]],
        "score": ["–" if np.isnan(score) else f"{score:.2f}" for score in cells["score"]],
        "crop": [f"data:image/jpeg;base64,{base64.b64encode(c).decode('ascii')}" if c else "" for c in cells["crop"]],
        "flags": [_shortened(text or "nothing odd", 3 * MAX_TEXT) for text in flags],
        "edge": (flags != "").to_numpy(np.float32),
    }
    for number, plane in enumerate(planes):
        data[f"x{number}"], data[f"y{number}"] = np.asarray(plane.points, np.float32).T.copy()
    source, document = ColumnDataSource(data), Document()
    orders = {"centre": list(centres), "cell_type": sorted(set(cells["cell_type"]))}
    plots: list[dict[str, str]] = []
    for number, plane in enumerate(planes):
        ranges: dict[str, Any] = {}
        for column, order in orders.items():
            figure = _figure(source, plane, ranges, with_flags="flags" in cells)
            _add_groups(figure, source, number, np.isfinite(plane.points).all(axis=1), cells[column], order)
            ranges = {"x_range": figure.x_range, "y_range": figure.y_range}
            document.add_root(figure)
            title = f"{plane.title} by {column.replace('_', ' ')}".strip()
            plots.append({"title": title, "id": f"{anchor}-{len(plots) + 1}"})

    known: dict[str, str] = {}

    def number_anew(value: dict[str, Any]) -> dict[str, Any]:
        # Bokeh's own numbers go on through the process. Data are in lists, and no column of ours is called id.
        return value | ({"id": known.setdefault(value["id"], f"m{len(known) + 1}")} if "id" in value else {})

    written = json.loads(json.dumps(document.to_json(deferred=False)), object_hook=number_anew)
    roots = {known[root.id]: plot["id"] for root, plot in zip(document.roots, plots, strict=True)}
    items = [{"docid": anchor, "roots": roots, "root_ids": list(roots)}]
    # Text in a script element ends at the first "</script", and "<!--" changes how it is read.
    text = json.dumps({"documents": {anchor: written}, "items": items}, separators=(",", ":"))
    return plots, text.translate({ord(character): f"\\u{ord(character):04x}" for character in "<>&"})


def page_scripts() -> tuple[str, ...]:
    """The programs that a page with plots needs."""
    from bokeh.resources import Resources

    # The core alone: without Bokeh's widgets, tables and formulas the page is a third as large.
    return (*Resources(mode="inline", components=["bokeh"], log_level="warn").js_raw, _LOADER)


def _figure(source: Any, plane: Plane, ranges: dict[str, Any], *, with_flags: bool) -> Any:
    """An empty plot."""
    from bokeh.models import BoxZoomTool, HoverTool, PanTool, ResetTool, Span, WheelZoomTool
    from bokeh.plotting import figure

    fields = [("centre", "@centre"), ("type", "@type"), ("file", "@file"), ("score", "@score")]
    fields += [("look at", "@flags")] if with_flags else []
    picture = f'<img src="@crop{{safe}}" width="{SHOWN_SIDE}" height="{SHOWN_SIDE}" alt="no picture">'
    # Of cells on one spot the first: a pile of pictures would cover the plot.
    hover = HoverTool(tooltips=[("cell", picture), *fields], limit=1)
    tools = [PanTool(), BoxZoomTool(), WheelZoomTool(), ResetTool(), hover]
    plain = {"background_fill_color": None, "border_fill_color": None, "outline_line_color": "#d8dee4"}
    plot = figure(height=PLOT_HEIGHT, sizing_mode="stretch_width", tools=tools, **plain, **ranges)
    plot.toolbar_location = "above"
    plot.toolbar.logo = None  # a link to another place
    plot.grid.grid_line_color = "#e3e7eb"
    if plane.axes is None:
        plot.axis.visible = plot.grid.visible = False
    else:
        plot.xaxis.axis_label, plot.yaxis.axis_label = plane.axes
        plot.axis.axis_label_text_font_style = "normal"
        plot.axis.axis_label_text_color = INK
    if plane.level is not None:
        plot.add_layout(Span(location=plane.level, dimension="width", line_color=GREY, line_dash="dashed"))
    return plot


def _add_groups(plot: Any, source: Any, number: int, drawn: np.ndarray, names: pd.Series, order: Sequence[str]) -> None:
    """Draw the cells of each group in its colour, and the legend; those without a name come last, grey."""
    from bokeh.models import CDSView, IndexFilter, Legend, LegendItem

    size = float(np.clip(160 / np.sqrt(max(int(drawn.sum()), 1)), 5, 9))
    styles = [(name, *group_style(i)) for i, name in enumerate(name for name in order if name)]
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
    return name.replace("_", " ") or "no type"


def _shortened(text: str, length: int = MAX_TEXT) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"
