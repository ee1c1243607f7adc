"""Styles of the three synthetic centres: stain, lamp, pixel size, crowding, dirt, cell types."""

from collections.abc import Mapping
from dataclasses import dataclass

RGB = tuple[int, int, int]


@dataclass(frozen=True)
class CentreStyle:
    """How smears of one centre look; pairs are the ends of a uniform distribution, colours are RGB 0 to 255."""

    imitates: str  # what the style was modelled on
    image_size: int  # side of the square images in pixels
    red_cell_radius: float  # radius of a red cell as a fraction of the image side; with `image_size` the pixel size
    lamp: RGB  # colour of empty background
    chromatin: RGB  # colour of white light behind a layer of density 1 of each dye
    azure: RGB  # colour of white light behind a layer of density 1 of each dye
    eosin: RGB  # colour of white light behind a layer of density 1 of each dye
    haemoglobin: RGB  # colour of white light behind a layer of density 1 of each dye
    stain_variation: float  # relative standard deviation of each dye's strength from slide to slide
    lamp_variation: float  # relative standard deviation of brightness and of each colour channel
    vignetting: float  # fraction of light lost in the corners
    blur: tuple[float, float]  # defocus, standard deviation in pixels at `image_size`
    noise: float  # standard deviation of the sensor's noise in grey levels at full light
    jpeg_quality: tuple[int, int]  # 1 to 100, of the compression that images went through
    crowding: float  # fraction of the area offered to red cells (they overlap, so less is covered)
    red_cell_density: tuple[float, float]  # density of haemoglobin at a red cell's rim
    pallor: tuple[float, float]  # fraction of the density missing in the middle of a red cell
    dark_red_share: float  # fraction of red cells that are stained strongly and have no pallor
    platelets: tuple[int, int]  # how many per image, inclusive
    debris: tuple[int, int]  # how many per image, inclusive
    second_cell_share: float  # fraction of images with a second white cell at the border
    type_counts: Mapping[str, int]  # how many of each cell type there are in a shuffled deck that images are dealt from


CENTRES: dict[str, CentreStyle] = {
    "north": CentreStyle(
        imitates="May-Gruenwald-Giemsa on an automated slide scanner: cream background, dark violet nuclei, "
        "mauve red cells with clear pallor, sharp (like Acevedo et al. 2020)",
        image_size=160, red_cell_radius=0.098, lamp=(252, 229, 203), chromatin=(84, 52, 150), azure=(158, 162, 214),
        eosin=(226, 152, 158), haemoglobin=(204, 168, 172), stain_variation=0.09, lamp_variation=0.015,
        vignetting=0.04, blur=(0.4, 0.75), noise=2.0, jpeg_quality=(90, 96), crowding=0.45,
        red_cell_density=(0.7, 1.1), pallor=(0.3, 0.75), dark_red_share=0.05, platelets=(0, 4), debris=(0, 2),
        second_cell_share=0.15,
        type_counts={
            "neutrophil_segmented": 5, "neutrophil_banded": 3, "eosinophil": 3, "basophil": 2, "monocyte": 3,
            "lymphocyte_typical": 4, "erythroblast": 2, "myeloblast": 2, "promyelocyte": 2, "myelocyte": 2,
            "metamyelocyte": 2,
        },
    ),
    "river": CentreStyle(
        imitates="a pale, bluish stain photographed in wide fields with an old camera: dim grey-green "
        "background, light violet nuclei, tan crowded red cells of which some are very dark (like BCCD)",
        image_size=144, red_cell_radius=0.082, lamp=(205, 216, 207), chromatin=(152, 118, 236),
        azure=(206, 198, 238), eosin=(226, 178, 200), haemoglobin=(216, 180, 178), stain_variation=0.14,
        lamp_variation=0.05, vignetting=0.14, blur=(0.6, 1.1), noise=4.0, jpeg_quality=(60, 85), crowding=0.75,
        red_cell_density=(0.55, 1.15), pallor=(0.1, 0.7), dark_red_share=0.18, platelets=(1, 6), debris=(0, 2),
        second_cell_share=0.22,
        type_counts={
            "neutrophil_segmented": 7, "neutrophil_banded": 2, "eosinophil": 4, "basophil": 2, "monocyte": 2,
            "lymphocyte_typical": 3, "erythroblast": 2, "myeloblast": 2, "promyelocyte": 2, "myelocyte": 2,
            "metamyelocyte": 2,
        },
    ),
    "harbour": CentreStyle(
        imitates="a rapid stain seen close up under a yellow halogen lamp: yellow background, maroon nuclei, "
        "grey-green cytoplasm, red cells washed out to rings, soft focus, much dirt (like the Jiangxi Tecom "
        "images of Zheng et al. 2018)",
        image_size=128, red_cell_radius=0.135, lamp=(252, 240, 134), chromatin=(122, 38, 92), azure=(148, 172, 186),
        eosin=(232, 176, 132), haemoglobin=(214, 196, 150), stain_variation=0.12, lamp_variation=0.03,
        vignetting=0.08, blur=(0.9, 1.5), noise=2.5, jpeg_quality=(70, 90), crowding=0.3,
        red_cell_density=(0.5, 1.0), pallor=(0.6, 0.95), dark_red_share=0.1, platelets=(0, 3), debris=(1, 5),
        second_cell_share=0.1,
        type_counts={
            "neutrophil_segmented": 4, "neutrophil_banded": 3, "eosinophil": 2, "basophil": 2, "monocyte": 4,
            "lymphocyte_typical": 5, "erythroblast": 2, "myeloblast": 3, "promyelocyte": 2, "myelocyte": 2,
            "metamyelocyte": 2,
        },
    ),
}  # fmt: skip
