"""Pieces of an HTML page that needs nothing but itself: no network, no other files, and scripts only for plots.

Every function that takes text escapes it, unless it is `Html`, which only these functions make. File names
and labels come from other people's folders, so nothing reaches the page around them.
"""

import base64
import hashlib
import html
import io
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from PIL import Image

JPEG_QUALITY = 85
MAX_FILES = 200  # in a list
DASH = "–"  # where there is no value

STYLE = """
:root { --ink: #1b1f24; --soft: #57606a; --line: #d8dee4; --tint: #f4f6f8; --accent: #0072b2; }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0 auto; padding: 48px 32px 96px; max-width: 1120px; background: #fff; color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "Liberation Sans", Arial,
  sans-serif; }
h1 { font-size: 34px; line-height: 1.2; margin: 0 0 8px; letter-spacing: -0.01em; }
h2 { font-size: 23px; line-height: 1.25; margin: 56px 0 12px; padding-top: 20px;
  border-top: 2px solid var(--ink); }
h3 { font-size: 17px; margin: 28px 0 8px; }
h4 { font-size: 15px; margin: 20px 0 6px; }
p { margin: 0 0 12px; max-width: 76ch; }
.lead { color: var(--soft); font-size: 18px; }
.note, figcaption, caption { color: var(--soft); font-size: 14px; line-height: 1.45; }
.missing { background: var(--tint); border-left: 4px solid #e69f00; padding: 10px 14px; }
nav { margin: 20px 0 0; font-size: 14px; }
nav ol { display: flex; flex-wrap: wrap; gap: 4px 18px; margin: 0; padding: 0; list-style: none; }
a { color: var(--accent); }
code, pre { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, "Liberation Mono", monospace;
  font-size: 13px; }
code { overflow-wrap: anywhere; }
pre { background: var(--tint); padding: 14px 16px; overflow-x: auto; line-height: 1.45; white-space: pre-wrap;
  overflow-wrap: anywhere; margin: 8px 0; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(156px, 1fr)); gap: 12px;
  margin: 28px 0 0; }
.card { border: 1px solid var(--line); border-radius: 8px; padding: 12px 14px; }
.card .name { font-size: 13px; line-height: 1.35; color: var(--soft); min-height: 2.7em; }
.card .value { font-size: 28px; font-weight: 600; line-height: 1.25; font-variant-numeric: tabular-nums; }
.card .detail { font-size: 13px; color: var(--soft); line-height: 1.4; overflow-wrap: anywhere; }
.scroll { overflow-x: auto; margin: 12px 0 16px; }
.beside { display: flex; flex-wrap: wrap; gap: 0 72px; align-items: flex-start; }
table { border-collapse: collapse; font-size: 14px; line-height: 1.35; font-variant-numeric: tabular-nums; }
caption { caption-side: top; text-align: left; padding: 0 0 8px; max-width: 76ch; }
th, td { padding: 6px 14px 6px 0; text-align: left; vertical-align: baseline;
  border-bottom: 1px solid var(--line); }
th { font-weight: 600; }
tbody th { font-weight: 500; }
thead th { border-bottom: 1.5px solid var(--ink); vertical-align: bottom; white-space: nowrap; }
thead tr.groups th { border-bottom: 0; padding-bottom: 0; text-align: center; }
th.number, td.number { text-align: right; padding: 6px 0 6px 22px; white-space: nowrap; }
td.best { font-weight: 700; }
td .spread { color: var(--soft); font-weight: 400; font-size: 12.5px; }
tr.same td, tr.same th { color: var(--soft); background: var(--tint); }
tr.total td, tr.total th { border-top: 1.5px solid var(--ink); white-space: nowrap; }
tr.total td.best { font-weight: 700; }
td.name { overflow-wrap: anywhere; min-width: 12ch; }
figure { margin: 16px 0 24px; }
figure > img { display: block; width: 100%; height: auto; }
figure.narrow > img { max-width: 760px; }
figcaption { margin-top: 8px; max-width: 90ch; }
.grid { display: grid; gap: 12px 10px; margin: 10px 0 24px; }
.tile { margin: 0; min-width: 0; }
.tile img { display: block; width: 100%; height: auto; border-radius: 3px; background: var(--tint); }
.tile figcaption { margin-top: 4px; font-size: 12px; line-height: 1.3; overflow-wrap: break-word;
  hyphens: auto; }
.strip { display: grid; grid-template-columns: 128px 1fr; gap: 6px 14px; align-items: center;
  margin: 8px 0 24px; }
.strip span { font-size: 13px; color: var(--soft); text-align: right; line-height: 1.3; }
.strip img { display: block; width: 100%; height: auto; }
.plots { display: grid; grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 0 28px; margin: 10px 0 4px; }
.plot { margin: 0 0 8px; min-width: 0; break-inside: avoid; }
.plot figcaption { margin: 0 0 2px; color: var(--ink); }
td.picture, th.picture { padding-right: 10px; vertical-align: middle; }
td.picture ~ td { vertical-align: middle; }
td.picture img { display: block; max-width: none; border-radius: 3px; background: var(--tint); }
details { border: 1px solid var(--line); border-radius: 8px; padding: 10px 16px; margin: 10px 0; }
summary { cursor: pointer; font-weight: 600; }
ul.files { columns: 2; column-gap: 32px; padding-left: 18px; margin: 8px 0 16px; font-size: 13px; }
ul.files li { overflow-wrap: anywhere; break-inside: avoid; }
footer { margin-top: 64px; padding-top: 14px; border-top: 1px solid var(--line); }
@media (max-width: 700px) { body { padding: 24px 16px 64px; } ul.files { columns: 1; }
  .plots { grid-template-columns: minmax(0, 1fr); }
  .grid { grid-template-columns: repeat(auto-fill, minmax(96px, 1fr)) !important; }
  .strip { grid-template-columns: 1fr; } .strip span { text-align: left; } }
@media print { @page { margin: 14mm; } body { padding: 0; max-width: none; font-size: 10.5pt; }
  nav { display: none; } h2 { margin-top: 28px; } h2, h3, h4, caption { break-after: avoid; }
  .card, .tile, tr, figure, .strip { break-inside: avoid; } a { color: inherit; }
  .scroll { overflow: visible; }
  * { -webkit-print-color-adjust: exact; print-color-adjust: exact; } }
"""


class Html(str):
    """Text that is markup already."""


def escape(value: Any) -> Html:
    """Turn text, or anything that has a text form, into markup; markup stays as it is."""
    return value if isinstance(value, Html) else Html(html.escape(str(value), quote=True))


def join(pieces: Iterable[Any], separator: str = "\n") -> Html:
    """Put pieces behind each other."""
    return Html(separator.join(escape(piece) for piece in pieces))


def tag(name: str, *content: Any, **attributes: Any) -> Html:
    """Make an element; `class_` stands for class, and attributes that are None are left out."""
    pairs = ((key.rstrip("_").replace("_", "-"), value) for key, value in attributes.items() if value is not None)
    written = "".join(f' {key}="{escape(value)}"' for key, value in pairs)
    return Html(f"<{name}{written}>{join(content, '')}</{name}>")


def paragraph(*content: Any, kind: str | None = None) -> Html:
    """Make a paragraph of the kind "lead", "note" or "missing", or a plain one."""
    return tag("p", *content, class_=kind)


def code(text: str) -> Html:
    """Mark text as code, such as a file name."""
    return tag("code", text)


def image(data: bytes, alt: str) -> Html:
    """Embed a PNG or JPEG.

    Args:
        data: the file's content.
        alt: what it shows, for those who do not see it.
    """
    kind = "png" if data.startswith(b"\x89PNG") else "jpeg"
    width, height = Image.open(io.BytesIO(data)).size
    source = f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"
    return Html(f'<img src="{source}" alt="{escape(alt)}" width="{width}" height="{height}">')


def figure(data: bytes, alt: str, caption: Any, *, kind: str | None = None) -> Html:
    """Embed a picture over the whole width, with a caption; kind "narrow" limits the width."""
    return tag("figure", image(data, alt), tag("figcaption", caption), class_=kind)


def grid(tiles: Sequence[tuple[bytes, str, Any]], columns: int) -> Html:
    """Lay (picture, alternative text, caption) side by side."""
    figures = [
        tag("figure", image(data, alt), tag("figcaption", caption), class_="tile") for data, alt, caption in tiles
    ]
    return tag("div", *figures, class_="grid", style=f"grid-template-columns: repeat({columns}, 1fr)")


def strips(rows: Sequence[tuple[str, bytes, str]]) -> Html:
    """Lay wide pictures under each other: (name, picture, alternative text), the name at the left."""
    cells = [piece for name, data, alt in rows for piece in (tag("span", name), image(data, alt))]
    return tag("div", *cells, class_="strip")


def cards(items: Sequence[tuple[str, str, str]]) -> Html:
    """Show key numbers as (name, value, detail)."""
    return tag(
        "div",
        *(
            tag(
                "div",
                tag("div", name, class_="name"),
                tag("div", value, class_="value"),
                tag("div", detail, class_="detail"),
                class_="card",
            )
            for name, value, detail in items
        ),
        class_="cards",
    )


def cell(content: Any, *, number: bool = True, best: bool = False) -> Html:
    """Make a table cell; numbers stand at the right."""
    kinds = [name for name, wanted in (("number", number), ("name", not number), ("best", best)) if wanted]
    return tag("td", content, class_=" ".join(kinds))


def row(name: Any, cells: Sequence[Html], *, kind: str | None = None) -> Html:
    """Make a table row of the kind "same" (tinted) or "total" (ruled), or a plain one."""
    return tag("tr", tag("th", name, scope="row"), *cells, class_=kind)


def table(head: Sequence[Html], rows: Sequence[Html], caption: Any = None) -> Html:
    """Make a table of rows as from `row`; `head` holds the rows as from `head_row`."""
    above = [] if caption is None else [tag("caption", caption)]
    return tag("div", tag("table", *above, tag("thead", *head), tag("tbody", *rows)), class_="scroll")


def head_row(first: Any, names: Sequence[Any]) -> Html:
    """Make a head row; all names but the first stand at the right, over numbers."""
    others = (tag("th", name, class_="number", scope="col") for name in names)
    return tag("tr", tag("th", first, scope="col"), *others)


def file_list(entries: Sequence[tuple[str, str]], rest: str) -> Html:
    """List files with what is known of each, the first `MAX_FILES` of them.

    Args:
        entries: (name, reason) of each file.
        rest: where the others are named, as "the CSV file".
    """
    items = [tag("li", code(name), f" {reason}") for name, reason in entries[:MAX_FILES]]
    more = len(entries) - len(items)
    return tag("ul", *items, *([tag("li", f"and {more:,} more, named in {rest}")] if more else []), class_="files")


def beside(*blocks: Html) -> Html:
    """Put narrow blocks side by side where there is room."""
    return tag("div", *blocks, class_="beside")


def not_run(what: str, path: str) -> Html:
    """Say that a stage was not run, and which file would be there."""
    return paragraph(f"{what} was not run: there is no ", code(path), ".", kind="missing")


def details(summary: str, *content: Any) -> Html:
    """Make a block that opens on a click."""
    return tag("details", tag("summary", summary), *content)


def section(anchor: str, title: str, *content: Any) -> Html:
    """Make a section with its heading."""
    return tag("section", tag("h2", title), join(content), id=anchor)


def page(title: str, *content: Any, scripts: Sequence[str] = ()) -> Html:
    """Make the whole document.

    Args:
        title: of the window.
        content: the body.
        scripts: programs that run once the body is there. The browser is told their hashes, and runs no others.
    """
    digests = [base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii") for text in scripts]
    allowed = "".join(f" 'sha256-{digest}'" for digest in digests)
    # The page asks the browser to load nothing, whatever text slipped into it.
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    policy += f"; script-src{allowed}" if scripts else ""
    programs = [Html(f"<script>{text}</script>") for text in scripts]
    return Html(
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n{join(content)}\n"
        f"{join(programs)}</body>\n</html>\n"
    )


def percent(share: float) -> str:
    """Write a share as per cent."""
    return f"{100 * share:.1f} %"


def spaced(name: str) -> str:
    """Write a name with spaces for underscores."""
    return name.replace("_", " ")


def encode_image(
    pixels: np.ndarray, *, max_side: int | None = None, photo: bool = True, quality: int = JPEG_QUALITY
) -> bytes:
    """Encode a picture as JPEG, or as PNG where every pixel counts.

    Args:
        pixels: uint8 array of shape (height, width, 3).
        max_side: pictures with a longer side are reduced to it.
        photo: False for PNG.
        quality: of a JPEG, 1 to 95.
    """
    picture = Image.fromarray(pixels)
    if max_side is not None and max(picture.size) > max_side:
        picture.thumbnail((max_side, max_side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    if photo:
        picture.save(buffer, "JPEG", quality=quality, optimize=True)
    else:
        picture.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
