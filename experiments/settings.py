"""The YAML file of a run: read, overridden from the command line, checked, resolved.

Nothing here imports TensorFlow, so that a wrong file is refused at once.
"""

import dataclasses
import difflib
import re
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from autoencoder.config import AutoencoderConfig
from experiments.study_settings import ReproduceSettings
from experiments.yaml_files import parse_yaml, read_yaml_file
from mrcnn.config import SmearConfig, make_config
from mrcnn.errors import InputError

ANNOTATION_FORMATS = ("auto", "masks", "coco", "via", "labelme")
_MAX_DRAWN = 100_000  # images of a synthetic centre
_MAX_COUNT = 100_000
METHODS = ("R-CNN-RF", "AE-RF", "AE-CFE")


@dataclass
class CentreSettings:
    """Where the images of one centre are.

    Attributes:
        root: folder, relative to the run's `data`; ignored for layout "synthetic".
        layout: "synthetic", "auto", "acevedo20", "matek19", "int20", "mll23", "folders" or "csv".
        num_images: of a synthetic centre.
        mask_semantics: "cell" (any value above 0 is cell) or "instances" (each value is a cell of its own).
        annotations: file or folder of masks or outlines, from `root`; "" looks for `masks/` and annotation files.
        annotation_format: "auto", "masks", "coco", "via" or "labelme".
        annotation_names: labels of the outlines that are cells; empty for all.
        box_names: object names of Pascal VOC files that are white cells.
        exclude_labels: labels whose images are left out altogether.
        use: "all", or "detector" for images that only the detector learns from.
        group_column: column of `group_file` that tells which images belong together, such as those of a patient or of a
            slide; the images of a group either train or test. "" for none.
        group_file: CSV file with the columns `image` and `group_column`, from `root`.
    """

    root: str = ""
    layout: str = "auto"
    num_images: int = 120
    mask_semantics: str = "cell"
    annotations: str = ""
    annotation_format: str = "auto"
    annotation_names: list[str] = field(default_factory=list)
    box_names: list[str] = field(default_factory=lambda: ["WBC"])
    exclude_labels: list[str] = field(default_factory=list)
    use: str = "all"
    group_column: str = ""
    group_file: str = "labels.csv"


@dataclass
class DetectorSettings:
    """How the detector is trained.

    Attributes:
        train_on: centres with masks that it learns from.
        train_share: of their images; the rest is held out for evaluation.
        epochs: of STEPS_PER_EPOCH steps.
        settings: overrides of `mrcnn.config.SmearConfig`. Where DETECTION_MIN_CONFIDENCE is not among them, it is
            chosen on the held-out images.
        weights: what the training begins from: "imagenet" (downloaded), an .h5 file in Matterport's layout, or None
            for random numbers.
        exclude: layers that do not take those weights, as a rule the heads of another number of classes.
        layers: which layers learn: "heads", "3+", "4+", "5+", "all" or a regular expression over their names.
        min_score_for_ap: lowest score that enters the precision-recall curve, and the choice of
            DETECTION_MIN_CONFIDENCE.
    """

    train_on: list[str] = field(default_factory=list)
    train_share: float = 0.8
    epochs: int = 26
    settings: dict[str, Any] = field(default_factory=dict)
    weights: str | None = None
    exclude: list[str] = field(default_factory=list)
    layers: str = "all"
    min_score_for_ap: float = 0.05

    def validate(self) -> None:
        """Check what the types do not say.

        Raises:
            InputError: naming the setting.
        """
        if not 0.0 < self.train_share < 1.0:
            raise InputError(f"detector.train_share must lie between 0 and 1; got {self.train_share}")
        if self.epochs < 1:
            raise InputError(f"detector.epochs must be 1 or more; got {self.epochs}")
        if not 0.0 <= self.min_score_for_ap <= 1.0:
            raise InputError(f"detector.min_score_for_ap must lie between 0 and 1; got {self.min_score_for_ap}")
        if self.exclude and not self.weights:
            raise InputError(
                "detector.exclude (--exclude) names layers that do not take the weights to begin with, and none are "
                "given: add detector.weights (--weights), or leave it out"
            )
        pretrained = {"NORMALIZATION": "frozen_batch"} if self.weights else {}
        make_config({**pretrained, **self.settings}, SmearConfig)
        try:
            re.compile(self.layers)
        except re.error as error:
            raise InputError(
                f"detector.layers must be heads, 3+, 4+, 5+, all or a regular expression; got {self.layers!r} ({error})"
            ) from None


@dataclass
class ExtractSettings:
    """How features are extracted.

    Attributes:
        all_cells: keep every detection instead of one for each image.
        masks: store 28x28 masks too.
        batch_size: images in a batch.
    """

    all_cells: bool = False
    masks: bool = True
    batch_size: int = 8


@dataclass
class EvaluateSettings:
    """The cross-centre table.

    Attributes:
        methods: columns.
        runs: forests grown for each row.
        test_on: "test" (the other centres' test parts, as in the thesis) or "all" (all of their cells).
        raw_features: R-CNN-RF's vector: "mean" over the 14x14 grid, or "flat".
    """

    methods: list[str] = field(default_factory=lambda: list(METHODS))
    runs: int = 5
    test_on: str = "test"
    raw_features: str = "mean"


@dataclass
class RunSettings:
    """Everything that a run needs.

    Attributes:
        name: of the run.
        output: its folder.
        data: folder that the centres' roots are relative to.
        seed: of everything random.
        scheme: class map, see `experiments.class_maps`.
        centres: by name.
        detector: training of the detector.
        extract: feature extraction.
        autoencoder: overrides of `autoencoder.config.AutoencoderConfig`.
        evaluate: the table.
        reproduce: the thesis' experiments, see `experiments.study_settings`.
    """

    name: str = "run"
    output: str = ""
    data: str = "."
    seed: int = 0
    scheme: str = "thesis13"
    centres: dict[str, CentreSettings] = field(default_factory=dict)
    detector: DetectorSettings = field(default_factory=DetectorSettings)
    extract: ExtractSettings = field(default_factory=ExtractSettings)
    autoencoder: dict[str, Any] = field(default_factory=dict)
    evaluate: EvaluateSettings = field(default_factory=EvaluateSettings)
    reproduce: ReproduceSettings = field(default_factory=ReproduceSettings)

    def to_dict(self) -> dict[str, Any]:
        """Nested plain values, as JSON and YAML hold them."""
        return dataclasses.asdict(self)

    def validate(self) -> None:
        """Check what the types do not say.

        Raises:
            InputError: naming the setting.
        """
        if not self.centres:
            raise InputError("centres: a run needs at least one centre")
        if not 0 <= self.seed < 2**32:
            raise InputError(f"seed must be a whole number from 0 to {2**32 - 1}; got {self.seed}")
        for name, centre in self.centres.items():
            # Files are named after centres.
            if not name or not name.isprintable() or "/" in name or "\\" in name or name.startswith("."):
                raise InputError(f"centres: {name!r} is no name for files; choose another")
            if not 1 <= centre.num_images <= _MAX_DRAWN:
                raise InputError(f"centres.{name}.num_images must be 1 to {_MAX_DRAWN}; got {centre.num_images}")
            if centre.use not in ("all", "detector"):
                raise InputError(f"centres.{name}.use must be all or detector; got {centre.use!r}")
            if centre.mask_semantics not in ("cell", "instances"):
                raise InputError(
                    f"centres.{name}.mask_semantics must be cell or instances; got {centre.mask_semantics!r}"
                )
            if centre.annotation_format not in ANNOTATION_FORMATS:
                raise InputError(
                    f"centres.{name}.annotation_format must be one of {', '.join(ANNOTATION_FORMATS)}; "
                    f"got {centre.annotation_format!r}"
                )
        for name in self.detector.train_on:
            if name not in self.centres:
                raise InputError(f"detector.train_on: {name!r} is none of the centres {', '.join(self.centres)}")
        if not self.detector.train_on:
            raise InputError("detector.train_on: name the centres with masks that the detector shall learn from")
        self.detector.validate()
        for where, value in (("extract.batch_size", self.extract.batch_size), ("evaluate.runs", self.evaluate.runs)):
            if not 1 <= value <= _MAX_COUNT:
                raise InputError(f"{where} must be 1 to {_MAX_COUNT}; got {value}")
        # Now, and not when the detector has been trained.
        AutoencoderConfig.from_dict(self.autoencoder, where="autoencoder")
        self.reproduce.validate()
        overrides = {"bottleneck.autoencoder": self.reproduce.bottleneck.autoencoder}
        for column, values in self.reproduce.ablation.autoencoders.items():
            overrides[f"ablation.autoencoders.{column}"] = values
        for where, values in overrides.items():
            AutoencoderConfig.from_dict({**self.autoencoder, **values}, where=f"reproduce.{where}")
        if self.reproduce.bottleneck.centre not in (*self.centres, None):
            raise InputError(
                f"reproduce.bottleneck.centre: {self.reproduce.bottleneck.centre!r} is none of the centres "
                f"{', '.join(self.centres)}"
            )
        for method in self.evaluate.methods:
            if method not in METHODS:
                raise InputError(f"evaluate.methods: {method!r} is none of {', '.join(METHODS)}")
        if self.evaluate.test_on not in ("test", "all"):
            raise InputError(f"evaluate.test_on must be test or all; got {self.evaluate.test_on!r}")
        if self.evaluate.raw_features not in ("mean", "flat"):
            raise InputError(f"evaluate.raw_features must be mean or flat; got {self.evaluate.raw_features!r}")
        if "source_centre" in self.autoencoder and self.autoencoder["source_centre"] not in (*self.centres, None):
            raise InputError(
                f"autoencoder.source_centre: {self.autoencoder['source_centre']!r} is none of the centres "
                f"{', '.join(self.centres)}"
            )


def load_settings(path: str | Path, overrides: typing.Sequence[str] = ()) -> RunSettings:
    """Read a run's YAML file.

    Args:
        path: the file.
        overrides: "section.key=value" texts; the value is read as YAML.

    Raises:
        InputError: for a missing or malformed file, an unknown key, or a value of the wrong type, which is named.
    """
    path = Path(path)
    values = read_yaml(path)
    for override in overrides:
        set_value(values, override)
    values.setdefault("name", path.stem)
    values.setdefault("output", f"runs/{values['name']}")
    settings = build(RunSettings, values, path.name)
    settings.validate()
    return settings


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Read a YAML file that holds a mapping.

    Raises:
        InputError: if it is missing or holds something else.
    """
    values = read_yaml_file(path, missing="no such configuration file")
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise InputError(f"{path}: expected a mapping of settings, found {type(values).__name__}")
    return values


def read_section(path: str | Path, name: str) -> dict[str, Any]:
    """Read the settings of one section of a YAML file, none if the file has no such section.

    Raises:
        InputError: as `read_yaml`, or if the section holds something else than settings.
    """
    section = read_yaml(path).get(name)
    if section is None:
        return {}
    if not isinstance(section, dict):
        raise InputError(f"{path}: {name}: expected settings with keys, found {section!r}")
    return section


def set_value(values: dict[str, Any], override: str) -> None:
    """Put one "section.key=value" into nested mappings, in place.

    Raises:
        InputError: if the text has another form.
    """
    name, equals, text = override.partition("=")
    if not equals or not name:
        raise InputError(f"--set {override}: write it as section.key=value")
    try:
        value = parse_yaml(text)
    except ValueError as error:
        raise InputError(f"--set {override}: the value is not valid YAML ({error})") from None
    *sections, key = name.split(".")
    for section in sections:
        values = values.setdefault(section, {})
        if not isinstance(values, dict):
            raise InputError(f"--set {override}: {section} has no settings below it")
    values[key] = value


def build(cls: type, values: Any, where: str) -> Any:
    """Make a settings dataclass from plain values, recursively.

    Args:
        cls: the dataclass.
        values: mapping of its fields.
        where: what to call it in an error.

    Raises:
        InputError: for an unknown key or a value of the wrong type.
    """
    if not isinstance(values, dict):
        raise InputError(f"{where}: expected settings with keys, found {values!r}")
    known = {f.name: f for f in dataclasses.fields(cls)}
    hints = typing.get_type_hints(cls)
    arguments = {}
    for key, value in values.items():
        if key not in known:
            close = difflib.get_close_matches(str(key), known, n=1)
            hint = f"; did you mean {close[0]}?" if close else f" (known: {', '.join(known)})"
            raise InputError(f"{where}: unknown setting {key!r}{hint}")
        arguments[key] = _convert(hints[key], value, f"{where}: {key}")
    return cls(**arguments)


def _convert(hint: Any, value: Any, where: str) -> Any:
    origin = typing.get_origin(hint)
    if dataclasses.is_dataclass(hint):
        return build(hint, {} if value is None else value, where)
    if origin is dict:
        if not isinstance(value, dict):
            raise InputError(f"{where}: expected settings with keys, found {value!r}")
        item = typing.get_args(hint)[1]
        return {str(k): v if item is Any else _convert(item, v, f"{where}.{k}") for k, v in value.items()}
    if origin is list:
        if not isinstance(value, list):
            raise InputError(f"{where} must be a list; got {value!r}")
        return [_convert(typing.get_args(hint)[0], v, where) for v in value]
    if origin in (typing.Union, types.UnionType):
        if value is None:
            return None
        (hint,) = (choice for choice in typing.get_args(hint) if choice is not type(None))
        return _convert(hint, value, where)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if hint in (int, float, str, bool) and (not isinstance(value, hint) or (hint is int and isinstance(value, bool))):
        names = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
        raise InputError(f"{where} must be {names[hint]}; got {value!r}")
    return value
