"""Numbers that the thesis reports in its tables, to stand beside what is measured on the same data.

Source: R. Salehi, master's thesis, Politecnico di Torino, 2022-2023, Tables 3.1 to 3.3. Accuracies are in percent, as
(mean, standard deviation over 5 runs), the deviation None where the thesis gives none. Table 3.1 gives proportions.
"""

from collections.abc import Mapping

from experiments.centres.centre import Centre

# Layouts of the thesis' data sets and how many images each has as published. INT-20 was published as MLL23, with about
# as many images; the thesis tells of "over 18,000" of Matek-19 and "around 42,000" of INT-20.
_PUBLISHED_IMAGES = {"matek19": 18_365, "int20": 42_000, "mll23": 41_906, "acevedo20": 17_092}
_TOLERANCE = 0.02  # proportion of the images that may be missing or more

Value = tuple[float, float | None]
# Tables 3.2 and 3.3, its networks last: trained on, tested on, and the numbers of these columns.
_COLUMNS = ("ResNet-RF", "R-CNN-RF", "AE-RF", "ND-AE-DA", "AAE-DA", "AE-CFE", "Matek et al.", "ResNeXt")
_ABLATION = """
matek19   matek19   62.5±2.8 60.5±0.8  86.0±0.04 83.0±0.4  87.5±0.8  83.7±0.5 96.1 -
matek19   int20     0        0         46.8±0.2  40.0±0.21 31.4±0.31 48.4±0.2 29.5 -
matek19   acevedo20 0        0         20.1±0.1  8.4±0.8   8.6±0.4   21.9±0.4 8.1  -
int20     matek19   0        0         47.2±3.4  30.0±0.1  63.9±0.2  73.2±0.1 -    49.6±6.3
int20     int20     45.2±1.1 46.09±0.4 69.1±0.4  66.3±0.3  66.8±0.4  65.6±0.5 -    88.7±1.5
int20     acevedo20 0        0         4.6±0.6   15.7±0.9  17.7±0.7  31.8±0.4 -    16.9±1.6
acevedo20 matek19   0        0         39.4±1.4  15.2±0.4  39.4±0.6  45.1±0.5 -    7.3±3.1
acevedo20 int20     0        0         9.7±0.3   16.0±0.6  17.7±0.7  21.0±0.5 -    8.1±1.4
acevedo20 acevedo20 37.1±0.8 35.9±1.1  67.2±0.7  40.0±0.2  64.3±0.1  65.2±0.5 -    85.7±2.4
"""
# By size of the latent: (ResNet-101, ResNet-50) for AE-MSE, AE-SSIM, AE-MSE-BB, AE-SSIM-BB.
_TABLE_3_1_VARIANTS = (("mse", "image"), ("ssim", "image"), ("mse", "crop"), ("ssim", "crop"))
_TABLE_3_1: dict[int, tuple[float, ...]] = {
    5: (0.46, 0.46, 0.46, 0.72, 0.81, 0.46, 0.78, 0.72),
    10: (0.59, 0.66, 0.52, 0.72, 0.74, 0.75, 0.79, 0.78),
    50: (0.81, 0.79, 0.82, 0.81, 0.85, 0.84, 0.85, 0.84),
    100: (0.82, 0.79, 0.82, 0.82, 0.86, 0.84, 0.87, 0.85),
    150: (0.82, 0.80, 0.83, 0.83, 0.86, 0.84, 0.87, 0.85),
    300: (0.82, 0.80, 0.82, 0.83, 0.85, 0.83, 0.87, 0.85),
    400: (0.82, 0.81, 0.81, 0.83, 0.86, 0.84, 0.87, 0.86),
    650: (0.84, 0.77, 0.82, 0.82, 0.87, 0.82, 0.87, 0.85),
    1000: (0.81, 0.88, 0.80, 0.83, 0.84, 0.82, 0.86, 0.86),
}


def thesis_centres(centres: Mapping[str, Centre], scheme: str) -> dict[str, str]:
    """By name, which centres are "matek19", "int20" or "acevedo20", whole and with the thesis' 13 classes."""
    if scheme != "thesis13":
        return {}
    found = {}
    for name, centre in centres.items():
        whole = _PUBLISHED_IMAGES.get(centre.layout)
        if whole is not None and abs(len(centre.records) - whole) <= _TOLERANCE * whole:
            found[name] = "int20" if centre.layout == "mll23" else centre.layout
    return found


def ablation_number(column: str, trained_on: str | None, tested_on: str | None) -> Value | None:
    """Accuracy of a column of Table 3.2 or 3.3 in percent, centres as from `thesis_centres`; None where it has none."""
    for line in _ABLATION.strip().splitlines():
        trained, tested, *texts = line.split()
        mean, _, deviation = dict(zip(_COLUMNS, texts, strict=True)).get(column, "-").partition("±")
        if (trained, tested) == (trained_on, tested_on) and mean != "-":
            return float(mean), float(deviation) if deviation else None
    return None


def bottleneck_number(size: int, backbone: str, image_loss: str, image_source: str, centre: str | None) -> float | None:
    """Accuracy in Table 3.1, as a proportion, or None where it has none.

    The backbone is "resnet101" or "resnet50", the loss "mse" or "ssim", the image "image" or "crop"; the table is of
    Matek-19.
    """
    if centre != "matek19" or size not in _TABLE_3_1 or (image_loss, image_source) not in _TABLE_3_1_VARIANTS:
        return None
    column = 2 * _TABLE_3_1_VARIANTS.index((image_loss, image_source)) + (backbone != "resnet101")
    return _TABLE_3_1[size][column]
