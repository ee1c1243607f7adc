"""Settings of a run: its YAML file, changed from the command line, checked before anything long begins.

Nothing here imports TensorFlow.
"""

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, ValidationInfo, field_validator, model_validator
from typing_extensions import Self

from autoencoder.config import AutoencoderConfig
from mrcnn.config import Config, SmallSmearConfig, SmearConfig, make_config
from mrcnn.files.errors import InputError
from mrcnn.files.output_paths import is_file_name
from mrcnn.files.settings import Settings, overrides, parse_yaml, read_mapping

# Thesis Table 3.1.
SIZES = [5, 10, 50, 100, 150, 300, 400, 650, 1000]
# Columns of thesis Table 3.2 that are autoencoders, and what tells them apart.
AUTOENCODER_COLUMNS: dict[str, dict[str, Any]] = {
    "AE-RF": {"adaptation": "none"},
    "ND-AE-DA": {"adaptation": "normal"},
    "AAE-DA": {"adaptation": "adversarial"},
    "AE-CFE": {"adaptation": "mmd"},
}
HANDCRAFTED, HANDCRAFTED_LAB, RESNET, RCNN = "Handcrafted", "Handcrafted, Lab", "ResNet-RF", "R-CNN-RF"
MORPHOLOGY = "Morphology"  # of a detector that draws nuclei, and so no column unless it is asked for
COLUMNS = (HANDCRAFTED, HANDCRAFTED_LAB, RESNET, RCNN, *AUTOENCODER_COLUMNS)
# Names of columns in settings files of earlier releases, taken until the next one.
_FORMER_COLUMNS = {"Hand-made": HANDCRAFTED, "Hand-made, Lab": HANDCRAFTED_LAB}
_MAX_COUNT = 100_000


def _each_once(values: list) -> list:
    if not values or len(set(values)) != len(values):
        raise ValueError(f"name one or more, each once; got {values}")
    return values


def _without(*taken: str) -> AfterValidator:
    """Refuse overrides of settings that their surroundings set."""

    def check(values: dict[str, Any]) -> dict[str, Any]:
        for name in taken:
            if name in values:
                raise ValueError(f"{name} is set elsewhere; leave it out")
        return values

    return AfterValidator(check)


def check_centre_name(name: str) -> str:
    """Refuse a name that files cannot have."""
    if not is_file_name(name):
        raise InputError(f"centre name {name!r}: must be usable as a file name; choose another")
    return name


EachOnce = AfterValidator(_each_once)


def is_detector(start: str | None) -> bool:
    """Whether a training begins with a detector: its folder, or the name of one that ships."""
    is_file = start is not None and (Path(start).suffix in (".h5", ".hdf5") or Path(start).is_file())
    return start not in (None, "scratch", "imagenet") and not is_file


def _is_by_name(start: str | None) -> bool:
    return start not in (None, "scratch") and not is_detector(start) and not start.endswith(".weights.h5")


def smear_config(overrides: Mapping[str, Any]) -> type[Config]:
    """The settings that these change, where a training begins with no detector."""
    return SmallSmearConfig if overrides.get("BACKBONE") == "small" else SmearConfig


class CentreSettings(Settings):
    """Where the images of one centre are; paths are relative to `root`, and `root` to the run's `data`."""

    root: str = ""  # ignored for the layout "synthetic"
    layout: str = "auto"  # "synthetic", "auto", "acevedo20", "matek19", "int20", "mll23", "folders" or "csv"
    num_images: int = Field(120, ge=1, le=_MAX_COUNT)  # of a synthetic centre
    mask_semantics: Literal["cell", "instances"] = "cell"  # any value above 0 is cell, or each is a cell of its own
    annotations: str = ""  # file or folder of masks or outlines; "" looks for masks/ and for annotation files
    annotation_format: Literal["auto", "masks", "coco", "via", "labelme", "geojson"] = "auto"
    annotation_names: list[str] = []  # labels of the outlines that are cells; empty for all but nuclei
    nucleus_names: list[str] = ["nucleus", "nuclei"]  # labels of those that are nuclei, in any case of letters
    box_names: list[str] = ["WBC"]  # objects of Pascal VOC files that are white cells
    exclude_labels: list[str] = []  # labels whose images are left out altogether
    use: Literal["all", "detector"] = "all"  # "detector": only the detector is trained on the images
    # Column that tells which images belong together, as those of a patient or a slide, and so either train or test.
    group_column: str = ""
    group_file: str = "labels.csv"  # CSV file with this column and `image`


class DetectorSettings(Settings):
    """How the detector is trained, or which trained one is taken; without any of this, the one that ships."""

    # Of a trained detector that is taken as it is, or the name of one that ships: nothing is trained.
    folder: str | None = None
    train_on: list[str] = []  # centres with masks
    train_share: float = Field(0.8, gt=0, lt=1)  # of their images; the rest is held out for evaluation
    epochs: int = Field(26, ge=1)  # of STEPS_PER_EPOCH steps
    # To begin with: "scratch" (random weights), "imagenet", a detector's folder, the name of one that ships, an .h5
    # file in Matterport's layout, or a .weights.h5 file; None decides by the number of annotated images.
    start: str | None = None
    # Overrides of the detector's to begin with, or else of `mrcnn.config.SmearConfig`, or of SmallSmearConfig if
    # BACKBONE is "small". DETECTION_MIN_CONFIDENCE is else chosen on the held-out images.
    settings: dict[str, Any] = {}
    exclude: list[str] = []  # layers that do not take these weights, as heads of another number of classes
    layers: str = "all"  # that learn: "heads", "3+", "4+", "5+", "all" or a regular expression over their names
    # Lowest score that enters the precision-recall curve, and the choice of DETECTION_MIN_CONFIDENCE.
    min_score_for_ap: float = Field(0.05, ge=0, le=1)

    @property
    def is_trained(self) -> bool:
        """Whether a detector is to be trained."""
        return bool(self.train_on) and self.folder is None

    @property
    def starts_by_name(self) -> bool:
        """Whether it begins with weights that go by the layers' names: ImageNet's, or those of Matterport's layout."""
        return _is_by_name(self.start)

    @model_validator(mode="before")
    @classmethod
    def _take_former_name(cls, values: Any) -> Any:
        """`start` was called `weights`, and None was scratch."""
        if not isinstance(values, dict) or "weights" not in values:
            return values
        others = {name: value for name, value in values.items() if name != "weights"}
        return {"start": "scratch" if values["weights"] is None else values["weights"], **others}

    @field_validator("layers")
    @classmethod
    def _check_layers(cls, value: str) -> str:
        try:
            re.compile(value)
        except re.error as error:
            wanted = "heads, 3+, 4+, 5+, all or a regular expression"
            raise ValueError(f"must be {wanted}, got {value!r} ({error})") from None
        return value

    @field_validator("settings")
    @classmethod
    def _check_settings(cls, values: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        start = info.data.get("start")
        pretrained = {"NORMALIZATION": "frozen_batch"} if _is_by_name(start) else {}
        tried = {**pretrained, **values}
        try:
            make_config(tried, smear_config(values))
        except InputError:
            if start is not None and not is_detector(start):
                raise
            make_config(tried, SmallSmearConfig)  # nearest to the detector that it may begin with
        return values

    @field_validator("exclude")
    @classmethod
    def _check_exclude(cls, values: list[str], info: ValidationInfo) -> list[str]:
        if values and not _is_by_name(info.data.get("start")):
            raise ValueError("names layers that do not take the weights to begin with; give a file as start too")
        return values


class ExtractSettings(Settings):
    """How features are extracted."""

    all_cells: bool = False  # keep every detection instead of one for each image
    masks: bool = True  # store 28x28 masks too
    batch_size: int = Field(8, ge=1, le=_MAX_COUNT)


class EvaluateSettings(Settings):
    """The cross-centre table."""

    # Its columns.
    methods: list[Literal["R-CNN-RF", "Morphology", "AE-RF", "AE-CFE"]] = ["R-CNN-RF", "AE-RF", "AE-CFE"]
    runs: int = Field(5, ge=1, le=_MAX_COUNT)  # random forests trained for each row
    test_on: Literal["test", "all"] = "test"  # the other centres' test parts, as in the thesis, or all of their cells
    raw_features: Literal["mean", "flat"] = "mean"  # R-CNN-RF's vector: mean over the 14x14 grid, or the whole of it


class BottleneckSettings(Settings):
    """Thesis Table 3.1 and Figures 3.6 to 3.13."""

    sizes: list[Annotated[int, Field(ge=1)]] = Field(SIZES, min_length=1)  # of the latent
    backbones: Annotated[list[Literal["resnet101", "resnet50"]], EachOnce] = ["resnet101", "resnet50"]
    image_losses: Annotated[list[Literal["mse", "ssim"]], EachOnce] = ["mse", "ssim"]
    image_sources: Annotated[list[Literal["image", "crop"]], EachOnce] = ["image", "crop"]
    # Whose training part the forest is trained on and whose test part it is tested on; None: the source centre.
    centre: str | None = None
    # Overrides of the run's section `autoencoder` for this grid alone, but not of what the grid sets.
    autoencoder: Annotated[
        overrides(AutoencoderConfig), _without("adaptation", "latent_size", "image_loss", "image_source")
    ] = {}


class AblationSettings(Settings):
    """Thesis Table 3.2."""

    # By column, overrides of the run's section `autoencoder`; names that the thesis has not make columns of their own.
    autoencoders: dict[str, overrides(AutoencoderConfig)] = {}
    columns: Annotated[list[str], EachOnce] = list(COLUMNS)  # of COLUMNS, Morphology and `autoencoders`
    # Of each autoencoder, with seeds that follow each other; run number r of a classifier takes number r modulo this.
    training_runs: int = Field(1, ge=1)
    # "none" takes features as they are, "centre" standardises each within its centre without labels; each a column.
    standardise: Annotated[list[Literal["none", "centre"]], EachOnce] = ["none", "centre"]
    # Column that the others are compared with, cell by cell.
    reference: Annotated[str, AfterValidator(lambda name: _FORMER_COLUMNS.get(name, name))] = "AE-CFE"

    @field_validator("autoencoders")
    @classmethod
    def _check_autoencoders(cls, values: dict[str, Any]) -> dict[str, Any]:
        for name in (HANDCRAFTED, HANDCRAFTED_LAB, RESNET, RCNN, MORPHOLOGY):
            if name in values:
                raise ValueError(f"{name!r} is no autoencoder; choose another name")
        return values

    @field_validator("columns")
    @classmethod
    def _check_columns(cls, values: list[str], info: ValidationInfo) -> list[str]:
        values = [_FORMER_COLUMNS.get(name, name) for name in values]
        known = [*COLUMNS, MORPHOLOGY, *info.data.get("autoencoders", values)]
        for value in values:
            if value not in known:
                raise ValueError(f"{value!r} is none of {', '.join(dict.fromkeys(known))}")
        return values

    def autoencoder_of(self, column: str) -> dict[str, Any] | None:
        """Overrides of the run's section `autoencoder` for a column, or None if it is no autoencoder."""
        if column not in AUTOENCODER_COLUMNS and column not in self.autoencoders:
            return None
        return {**AUTOENCODER_COLUMNS.get(column, {}), **self.autoencoders.get(column, {})}


class OracleConfig(Settings):
    """Decides how an oracle of Table 3.3, a ResNeXt, is built and trained."""

    image_size: int = Field(64, ge=32, le=2048)  # side in pixels to which images are brought
    # In each stage; [3, 4, 6, 3] is ResNeXt-50.
    blocks: list[Annotated[int, Field(ge=1, le=100)]] = Field([3, 4, 6, 3], min_length=1, max_length=6)
    base_filters: int = Field(64, ge=1, le=1024)  # channels of the first convolution
    width_per_group: int = Field(4, ge=1, le=1024)  # channels of a group in the first stage
    cardinality: int = Field(32, ge=1, le=256)  # groups of the 3x3 convolutions
    normalization: Literal["batch", "group"] = "batch"
    steps: int = Field(6600, ge=1)  # the thesis' 150 epochs in batches of 1,500 come to about so many (section 3.4)
    batch_size: int = Field(32, ge=2, le=10**6)
    learning_rate: float = Field(1e-3, gt=0)  # Adam's at first (thesis section 3.4); falls to 0 along a half cosine
    augment: bool = True  # flip and turn images, and change their brightness and contrast a little
    balance_classes: bool = True  # every class equally frequent in a batch, however rare its images are
    seed: int = Field(0, ge=0)  # of the initial weights, the order of the images and the augmentation


class OracleSettings(Settings):
    """Thesis Table 3.3."""

    normalizations: Annotated[list[Literal["batch", "group"]], EachOnce] = ["batch", "group"]  # of the ResNeXt
    training_runs: int = Field(1, ge=1)  # of each, with seeds that follow each other
    network: Annotated[overrides(OracleConfig), _without("normalization", "seed")] = {}


class ReproduceSettings(Settings):
    """The thesis' experiments."""

    bottleneck: BottleneckSettings = BottleneckSettings()
    ablation: AblationSettings = AblationSettings()
    oracle: OracleSettings = OracleSettings()
    # Of ResNet-RF: "imagenet" (downloaded, with a checksum), the path of that file, or "random" for none.
    resnet_weights: str = "imagenet"
    resnet_image_size: int = Field(224, ge=32)  # side in pixels to which crops are resized for it
    bootstrap: int = Field(1000, ge=100)  # resamples behind each interval
    figure_cells: int = Field(8, ge=1)  # in each row of sheets and reconstructions


class RunSettings(Settings):
    """Everything that a run needs."""

    name: str = "run"
    output: str = ""  # the run's folder
    data: str = "."  # folder that the centres' roots are relative to
    seed: int = Field(0, ge=0, lt=2**31)  # scikit-learn takes twice as much, and further seeds are counted up
    scheme: str = "thesis13"  # class map, see `experiments.centres.class_maps`
    centres: dict[Annotated[str, AfterValidator(check_centre_name)], CentreSettings] = Field(min_length=1)
    detector: DetectorSettings = DetectorSettings()
    extract: ExtractSettings = ExtractSettings()
    autoencoder: overrides(AutoencoderConfig) = {}
    evaluate: EvaluateSettings = EvaluateSettings()
    reproduce: ReproduceSettings = ReproduceSettings()

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not (self.detector.train_on or self.detector.folder) and self.detector != DetectorSettings():
            raise ValueError(
                "detector.train_on: name the centres with masks that the detector is to be trained on, or leave out "
                "all of detector for the one that ships"
            )
        named = {
            "detector.train_on": self.detector.train_on,
            "autoencoder.source_centre": [self.autoencoder.get("source_centre")],
            "reproduce.bottleneck.centre": [self.reproduce.bottleneck.centre],
        }
        for where, names in named.items():
            for name in names:
                if name is not None and name not in self.centres:
                    raise ValueError(f"{where}: {name!r} is none of the centres {', '.join(self.centres)}")
        return self


def load_settings(path: str | os.PathLike, changes: Mapping[str, Any] | None = None) -> RunSettings:
    """Read a run's YAML file, or the `config.json` of a run; it is named after the file unless it says otherwise.

    Args:
        path: the file.
        changes: dotted name -> value that takes the place of the file's, see `parse_changes`.

    Raises:
        InputError: if the file is missing or malformed, or telling all its faults.
    """
    values = read_mapping(path, missing="no such configuration file")
    apply_changes(values, changes or {})
    values.setdefault("name", Path(path).stem)
    values.setdefault("output", f"runs/{values['name']}")
    return RunSettings.from_dict(values, where=Path(path).name)


def read_section(path: str | os.PathLike, name: str) -> dict[str, Any]:
    """Read the settings of one section of a YAML file, none if the file has no such section."""
    section = read_mapping(path, missing="no such configuration file").get(name)
    if not isinstance(section, dict | None):
        raise InputError(f"{path}: {name} must be settings with keys, got {section!r:.60}")
    return section or {}


def parse_changes(texts: Iterable[str]) -> dict[str, Any]:
    """Read texts "section.key=value", as `--set` takes them, to values by dotted name; values are YAML."""
    changes = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise InputError(f"--set {text}: write it as section.key=value")
        changes[name] = parse_yaml(value, f"--set {text}")
    return changes


def apply_changes(values: dict[str, Any], changes: Mapping[str, Any]) -> None:
    """Put values by dotted name into nested mappings, in place."""
    for name, value in changes.items():
        *sections, key = name.split(".")
        place = values
        for section in sections:
            place = place.setdefault(section, {})
            if not isinstance(place, dict):
                raise InputError(f"{name}: {section} has no settings below it")
        place[key] = value
