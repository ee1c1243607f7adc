"""Put the README's picture together from the figures of the demo: docs/figures/demo.jpg.

Usage: make demo && python tools/readme_picture.py

Left: the first images of each centre with what the detector found. Middle: cells and what the autoencoder draws of
them from their latents. Right: the map of all cells by their latents.
"""

from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

ROOT = Path(__file__).resolve().parents[1]
FIGURES = ROOT / "runs" / "demo" / "figures"
PICTURE = ROOT / "docs" / "figures" / "demo.jpg"
CENTRES = ("north", "river", "harbour")

SIDE, GAP, TITLE = 200, 8, 34
TILES = 3
# Where the tiles of a sheet of detections lie, see `mrcnn.overlays.sheet`.
SHEET_SIDE, SHEET_GAP = 320, 6
# Where the strips of reconstructions lie: originals, without adaptation, with adaptation.
STRIP_SIDE, STRIP_GAP = 112, 6
MAP_SHARE = 0.46  # of the width of the map's figure, its left half without that half's border


def tiles(centre: str) -> list[Image.Image]:
    """The first images of a centre with their detections."""
    with Image.open(FIGURES / f"detections_{centre}.png") as sheet:
        lefts = [SHEET_GAP + i * (SHEET_SIDE + SHEET_GAP) for i in range(TILES)]
        return [sheet.crop((left, SHEET_GAP, left + SHEET_SIDE, SHEET_GAP + SHEET_SIDE)) for left in lefts]


def strip(centre: str) -> list[Image.Image]:
    """A cell of a centre, and below it the same as the adapted autoencoder draws it."""
    with Image.open(FIGURES / f"reconstructions_{centre}.png") as strips:
        step = STRIP_SIDE + STRIP_GAP
        return [strips.crop((0, row * step, STRIP_SIDE, row * step + STRIP_SIDE)) for row in (0, 2)]


def main() -> None:
    """Draw it."""
    with Image.open(FIGURES / "map_ae_cfe.png") as both:
        cells = both.crop((0, 0, round(both.width * MAP_SHARE), both.height))
    height = TITLE + len(CENTRES) * (SIDE + GAP)
    cells.thumbnail((10_000, height - TITLE))
    left, middle = TILES * (SIDE + GAP) + 2 * GAP, 2 * (SIDE + GAP) + 2 * GAP
    picture = Image.new("RGB", (left + middle + cells.width, height), "white")
    draw = ImageDraw.Draw(picture)
    font = ImageFont.load_default(20)
    for place, title in ((0, "found on three centres' smears"), (left, "cell, and drawn from latent")):
        draw.text((place, 4), title, "black", font)
    draw.text((left + middle, 4), "all cells by their latents", "black", font)
    for row, centre in enumerate(CENTRES):
        top = TITLE + row * (SIDE + GAP)
        for column, tile in enumerate([*tiles(centre), *strip(centre)]):
            place = column * (SIDE + GAP) + (2 * GAP if column >= TILES else 0)
            picture.paste(tile.resize((SIDE, SIDE), Image.Resampling.LANCZOS), (place, top))
        draw.text((6, top + SIDE - 28), centre, "black", font)
    picture.paste(cells, (left + middle, TITLE))
    picture.save(PICTURE, quality=88)
    print(f"{PICTURE.relative_to(ROOT)}: {picture.width} x {picture.height}")


if __name__ == "__main__":
    main()
