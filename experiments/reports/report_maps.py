"""The section of a report that maps the cells: in the page to hover over, and as still pictures below figures/."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from experiments.evaluation.vectors import read_vectors
from experiments.figures.style import Groups, choose_rows, draw_maps, project, to_png
from experiments.reports import html as h
from experiments.reports.interactive_map import MapCells, Panel, crop_jpeg, interactive_maps, side_by_side
from experiments.reports.quality import cell_numbers
from experiments.reports.run_folder import AUTOENCODER_NAMES, Run
from mrcnn.feature_store import FeatureStore

MAX_POINTS = 3000
FEWEST_CELLS = 2

CellName = tuple[str, str, int]  # centre, key of the image, number of the cell in it


@dataclass(frozen=True)
class _Map:
    """Cells of one representation, of length n.

    Attributes:
        slug: name of the still picture.
        name: what the vectors are.
        vectors: float array of shape (n, d).
        cells: which cells.
        types: their types.
    """

    slug: str
    name: str
    vectors: np.ndarray
    cells: list[CellName]
    types: list[str]


def maps_section(run: Run) -> h.Html:
    """Maps of the cells by raw features and by the latents of each autoencoder."""
    lead = (
        "Each dot is a cell, and cells that are described alike lie close together. At the left, colours "
        "are centres: in a good description they mix. At the right, colours are cell types: they should "
        "form groups. Distances between far groups mean little in such maps. Point at a dot to see its cell; a click "
        "on a name below a map hides that group."
    )
    content: list[h.Html | _Map] = [h.paragraph(lead)]
    if run.stores:
        content.append(_raw_map(run))
    else:
        content.append(h.not_run("The extraction of features", "features/"))
    for name, slug in (("AE-RF", "map_ae_none"), ("AE-CFE", "map_ae_cfe")):
        folder = run.autoencoders.get(name)
        path = None if folder is None else folder / "embedding.h5ad"
        if path is None or not path.is_file():
            content.append(h.not_run(f"The embedding by {AUTOENCODER_NAMES[name]}", "embedding.h5ad"))
            continue
        table = read_vectors(path)
        centres = [centre for centre, (latents, _) in table.items() for _ in range(len(latents))]
        names = _cell_names(centres, [key for _, labels in table.values() for key in labels["key"].tolist()])
        rows = choose_rows(len(names), MAX_POINTS, run.seed)
        types = np.concatenate([labels["cell_type"] for _, labels in table.values()])[rows].tolist()
        vectors = np.concatenate([latents for latents, _ in table.values()])[rows]
        content.append(_Map(slug, AUTOENCODER_NAMES[name], vectors, [names[row] for row in rows], types))
    return h.section("maps", "Maps of the cells", *_drawn(run, content))


def _drawn(run: Run, content: Sequence[h.Html | _Map]) -> list[h.Html]:
    """Draw all maps at once, so that a cell's picture is in the page once, however many maps show it."""
    maps = [piece for piece in content if isinstance(piece, _Map) and len(piece.vectors) >= FEWEST_CELLS]
    types: dict[CellName, str] = {}
    for piece in maps:
        types.update(zip(piece.cells, piece.types, strict=True))
    rows = {cell: row for row, cell in enumerate(types)}
    groups: Groups = {
        "by centre": ([centre for centre, _, _ in types], run.centres),
        "by cell type": (list(types.values()), sorted(set(types.values()))),
    }
    panels, captions, stills = [], {}, {}
    for piece in maps:
        own, method = project(piece.vectors, run.seed)
        points = np.full((len(types), 2), np.nan, np.float32)
        drawn_rows = [rows[cell] for cell in piece.cells]
        points[drawn_rows] = own
        chosen = {title: ([names[row] for row in drawn_rows], order) for title, (names, order) in groups.items()}
        stills[piece.slug] = run.save_figure(piece.slug, to_png(draw_maps(own, chosen)))
        captions[piece.slug] = f"{method} of {len(own):,} cells."
        panels += [Panel(title, points, names, order) for title, (names, order) in groups.items()]
    plots, data = interactive_maps("maps-plot", _map_cells(run, types), panels) if panels else ([], h.Html())
    drawn: list[h.Html] = []
    for piece in content:
        if not isinstance(piece, _Map):
            drawn.append(piece)
            continue
        drawn.append(h.tag("h3", piece.name))
        if piece.slug not in stills:
            drawn.append(h.paragraph("Too few cells for a map.", kind="missing"))
            continue
        number = [other.slug for other in maps].index(piece.slug) * len(groups)
        alt = f"Map of cells by {piece.name}, coloured by centre and by cell type"
        still = h.image(stills[piece.slug], alt)
        drawn.append(side_by_side(plots[number : number + len(groups)], h.tag("figure", still)))
        drawn.append(h.paragraph(captions[piece.slug], kind="note"))
    return [*drawn, data]


def _raw_map(run: Run) -> _Map:
    """Features of some cells of all centres, averaged over the RoI; the choice is that of the latents."""
    counts = [run.summaries[centre].counts["cells"] for centre in run.stores]
    rows = choose_rows(sum(counts), MAX_POINTS, run.seed)
    pieces: list[np.ndarray] = []
    cells: list[CellName] = []
    types: list[str] = []
    first = 0
    for (centre, path), count in zip(run.stores.items(), counts, strict=True):
        own = rows[(rows >= first) & (rows < first + count)] - first
        first += count
        with FeatureStore(path) as store:
            for block in np.array_split(own, max(1, len(own) // 256)):
                pieces.append(store.read_rows("features", block).mean(axis=(1, 2), dtype=np.float32))
            names = _cell_names([centre] * count, store.keys.tolist())
        cells += [names[row] for row in own]
        types += [run.summaries[centre].cell_types[row] for row in own]
    return _Map("map_features", "Detector features (mean over each cell)", np.concatenate(pieces), cells, types)


def _cell_names(centres: Sequence[str], keys: Sequence[str]) -> list[CellName]:
    """What tells cells apart in stores and embeddings alike."""
    numbers = cell_numbers(list(zip(centres, keys, strict=True))).tolist()
    return list(zip(centres, keys, numbers, strict=True))


def _map_cells(run: Run, types: dict[CellName, str]) -> MapCells:
    """Crops and scores from the stores, as far as they hold the cells."""
    scores = dict.fromkeys(types, float("nan"))
    crops = dict.fromkeys(types, b"")
    for centre, path in run.stores.items():
        with FeatureStore(path) as store:
            names = _cell_names([centre] * len(store), store.keys.tolist())
            rows = [row for row, name in enumerate(names) if name in types]
            for start in range(0, len(rows), 256):
                block = rows[start : start + 256]
                pixels, found = store.read_rows("crop", block), store.read_rows("score", block)
                for row, crop, score in zip(block, pixels, found, strict=True):
                    crops[names[row]], scores[names[row]] = crop_jpeg(crop), float(score)
    return MapCells(
        [centre for centre, _, _ in types],
        list(types.values()),
        [key for _, key, _ in types],
        list(scores.values()),
        list(crops.values()),
    )
