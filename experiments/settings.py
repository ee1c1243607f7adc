"""The YAML file of a run: read, overridden from the command line, checked, resolved.

Nothing here imports TensorFlow, so that a wrong file is refused at once.
"""

import dataclasses
import difflib
import math
import re
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from autoencoder.config import AutoencoderConfig
from mrcnn.config import SmearConfig, make_config
from mrcnn.files.errors import InputError, one_line

MAX_BYTES = 2**18  # the longest configuration of ours has 6 KB; PyYAML reads some 100 KB in a second
_MAX_DEPTH = 30
_MAX_NODES = 50_000  # with aliases counted as often as they stand for something
_MAX_DIGITS = 19  # more do not fit into 64 bits, nor always into a float
# YAML 1.1 reads 010 as 8 and 1:30 as 90, which hardly anybody means.
_ODD_NUMBER = re.compile(r"[-+]?0[0-9_]+|.*:.*")
_TAGS = tuple(f"tag:yaml.org,2002:{kind}" for kind in ("null", "bool", "int", "float", "str", "seq", "map"))
_MERGE = "tag:yaml.org,2002:merge"


def read_yaml_file(path: str | Path, *, missing: str) -> Any:
    """Read a YAML file.

    Args:
        path: a UTF-8 file, with or without byte order mark.
        missing: what to say if there is no such file.

    Returns:
        Its value, None if it holds nothing.

    Raises:
        InputError: if the file is missing, cannot be read, or is not as `parse_yaml` wants it.
    """
    path = Path(path)
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise InputError(f"{path}: not a YAML file of settings ({size} bytes, at most {MAX_BYTES} are read)")
        return parse_yaml(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise InputError(f"{path}: {missing}") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not a YAML file (not UTF-8 text, byte {error.start}); save it as UTF-8") from None
    except InputError:
        raise
    except ValueError as error:
        raise InputError(f"{path}: not a YAML file ({error})") from None


def parse_yaml(text: str) -> Any:
    """Parse one YAML document.

    Returns:
        None, a bool, int, float or str, or lists and dicts of these. Dates are text. What several aliases stand for is
        one object in several places.

    Raises:
        ValueError: saying in one line what is wrong: no YAML or several documents; a key twice in one mapping; a tag
            such as `!!python/object`; nesting too deep; too many aliases of aliases; a number out of range.
    """
    try:
        return yaml.load(text, Loader=_PlainLoader)  # a SafeLoader that takes less
    except yaml.YAMLError as error:
        raise ValueError(one_line(error)) from None
    except RecursionError:
        raise ValueError("nested too deep") from None
    except (ValueError, LookupError, AttributeError, TypeError, OverflowError) as error:
        # The constructors raise these on `!!int "x"`, `!!float ""` and the like.
        raise ValueError(f"a value is not what its tag says ({one_line(error)})") from None


class _PlainLoader(yaml.SafeLoader):
    """Makes plain values alone, and counts what it makes."""

    # Without the implicit types that JSON has not: 2020-01-01 is text.
    yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag in (*_TAGS, _MERGE)]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    yaml_constructors = {tag: yaml.SafeLoader.yaml_constructors[tag] for tag in _TAGS}

    def __init__(self, stream: str):
        super().__init__(stream)
        self._depth = self._num_nodes = 0
        self._sizes: dict[int, int] = {}

    def fetch_flow_collection_start(self, token_class: type) -> None:
        # The scanner's own work grows with the square of this.
        if self.flow_level >= _MAX_DEPTH:
            raise yaml.YAMLError(f"nested more than {_MAX_DEPTH} deep")
        super().fetch_flow_collection_start(token_class)

    def add_indent(self, column: int) -> bool:
        if len(self.indents) >= _MAX_DEPTH:
            raise yaml.YAMLError(f"nested more than {_MAX_DEPTH} deep")
        return super().add_indent(column)

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node:
        is_alias = self.check_event(yaml.AliasEvent)
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise yaml.YAMLError(f"nested more than {_MAX_DEPTH} deep")
        before = self._num_nodes
        node = super().compose_node(parent, index)
        self._depth -= 1
        if is_alias and id(node) not in self._sizes:
            raise yaml.YAMLError("an alias stands for something that holds it")
        self._num_nodes += self._sizes[id(node)] if is_alias else 1
        self._sizes[id(node)] = self._num_nodes - before
        if self._num_nodes > _MAX_NODES:
            raise yaml.YAMLError(f"more than {_MAX_NODES} values, aliases counted as what they stand for")
        return node

    def construct_plain_mapping(self, node: yaml.MappingNode) -> dict:
        seen = set()
        for key_node, _ in node.value:
            if key_node.tag == _MERGE:
                continue
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, (str, int, float, bool, type(None))):
                raise yaml.YAMLError(f"{_place(key_node)}: a key must be text")
            if key in seen:
                raise yaml.YAMLError(f"{_place(key_node)}: key {key!r:.60} twice in one mapping")
            seen.add(key)
        return self.construct_mapping(node, deep=True)

    def construct_plain_list(self, node: yaml.SequenceNode) -> list:
        return self.construct_sequence(node, deep=True)

    def construct_whole_number(self, node: yaml.ScalarNode) -> int:
        # Before it is made: Python takes long for numbers of many digits.
        if len(node.value) > 4 * _MAX_DIGITS:
            raise yaml.YAMLError(f"{_place(node)}: number {node.value[:20]}... out of range")
        _check_notation(node)
        value = self.construct_yaml_int(node)
        if len(str(abs(value))) > _MAX_DIGITS:
            raise yaml.YAMLError(f"{_place(node)}: number {node.value[:20]}... out of range")
        return value

    def construct_number(self, node: yaml.ScalarNode) -> float:
        _check_notation(node)
        value = self.construct_yaml_float(node)
        if not math.isfinite(value):
            raise yaml.YAMLError(f"{_place(node)}: number {node.value[:40]} out of range")
        return value

    def construct_nothing(self, node: yaml.ScalarNode) -> None:
        value = self.construct_scalar(node)
        if value not in ("", "~", "null", "Null", "NULL"):
            raise yaml.YAMLError(f"{_place(node)}: {value[:40]} is not null")

    def construct_text(self, node: yaml.ScalarNode) -> str:
        value = self.construct_scalar(node)
        value.encode()  # half of a surrogate pair cannot be written again
        return value


_PlainLoader.add_constructor("tag:yaml.org,2002:map", _PlainLoader.construct_plain_mapping)
_PlainLoader.add_constructor("tag:yaml.org,2002:seq", _PlainLoader.construct_plain_list)
_PlainLoader.add_constructor("tag:yaml.org,2002:int", _PlainLoader.construct_whole_number)
_PlainLoader.add_constructor("tag:yaml.org,2002:float", _PlainLoader.construct_number)
_PlainLoader.add_constructor("tag:yaml.org,2002:str", _PlainLoader.construct_text)
_PlainLoader.add_constructor("tag:yaml.org,2002:null", _PlainLoader.construct_nothing)
_PlainLoader.add_constructor(None, yaml.SafeLoader.construct_undefined)


def _check_notation(node: yaml.ScalarNode) -> None:
    if _ODD_NUMBER.fullmatch(node.value):
        raise yaml.YAMLError(
            f"{_place(node)}: {node.value[:40]} would be a number to the base 8 or 60; write it plainly, or put it in "
            "quotes"
        )


def _place(node: yaml.Node) -> str:
    return f"line {node.start_mark.line + 1}"


# Thesis Table 3.1.
SIZES = (5, 10, 50, 100, 150, 300, 400, 650, 1000)
BACKBONES = ("resnet101", "resnet50")
# Columns of thesis Table 3.2 that are autoencoders, and what tells them apart.
AUTOENCODER_COLUMNS: dict[str, dict[str, Any]] = {
    "AE-RF": {"adaptation": "none"},
    "ND-AE-DA": {"adaptation": "normal"},
    "AAE-DA": {"adaptation": "adversarial"},
    "AE-CFE": {"adaptation": "mmd"},
}
HANDMADE, HANDMADE_LAB, RESNET, RCNN = "Hand-made", "Hand-made, Lab", "ResNet-RF", "R-CNN-RF"
COLUMNS = (HANDMADE, HANDMADE_LAB, RESNET, RCNN, *AUTOENCODER_COLUMNS)
STANDARDISE = ("none", "centre")


@dataclass
class BottleneckSettings:
    """Thesis Table 3.1 and Figures 3.6 to 3.13.

    Attributes:
        sizes: of the latent.
        backbones: of the detectors, "resnet101" and "resnet50".
        image_losses: "mse", "ssim".
        image_sources: "image", the whole image, and "crop", the cell's box.
        centre: whose training part the forest learns from and whose test part it is tested on; None takes the
            autoencoder's source centre.
        autoencoder: overrides of the run's section `autoencoder`, for this grid alone, but not of what the grid sets.
    """

    sizes: list[int] = field(default_factory=lambda: list(SIZES))
    backbones: list[str] = field(default_factory=lambda: list(BACKBONES))
    image_losses: list[str] = field(default_factory=lambda: ["mse", "ssim"])
    image_sources: list[str] = field(default_factory=lambda: ["image", "crop"])
    centre: str | None = None
    autoencoder: dict[str, Any] = field(default_factory=dict)

    def validate(self) -> None:
        """Check what the types do not say.

        Raises:
            InputError: naming the setting.
        """
        for name, allowed in (
            ("backbones", BACKBONES),
            ("image_losses", ("mse", "ssim")),
            ("image_sources", ("image", "crop")),
        ):
            _check_choices(f"reproduce.bottleneck.{name}", getattr(self, name), allowed)
        if not self.sizes or any(size < 1 for size in self.sizes):
            raise InputError(f"reproduce.bottleneck.sizes: one number or more, of 1 or more each; got {self.sizes}")
        for taken in ("adaptation", "latent_size", "image_loss", "image_source"):
            if taken in self.autoencoder:
                raise InputError(f"reproduce.bottleneck.autoencoder.{taken}: is set by the table itself; leave it out")


@dataclass
class AblationSettings:
    """Thesis Table 3.2.

    Attributes:
        columns: representations to compare: "Hand-made", the same of crops that are standardised in Lab first
            ("Hand-made, Lab"), "ResNet-RF", "R-CNN-RF", and autoencoders, which are the four of the thesis or names of
            `autoencoders`.
        autoencoders: by column, overrides of the run's section `autoencoder`. Other names than those of the thesis make
            columns of their own.
        training_runs: trainings of each autoencoder, with seeds that follow each other; run number r of a classifier
            takes training number r modulo this.
        standardise: "none" takes features as they are, "centre" standardises each within its centre, without labels;
            each entry makes a column of each representation.
        reference: column that the others are compared with, cell by cell.
    """

    columns: list[str] = field(default_factory=lambda: list(COLUMNS))
    autoencoders: dict[str, dict[str, Any]] = field(default_factory=dict)
    training_runs: int = 1
    standardise: list[str] = field(default_factory=lambda: list(STANDARDISE))
    reference: str = "AE-CFE"

    def validate(self) -> None:
        """Check what the types do not say.

        Raises:
            InputError: naming the setting.
        """
        _check_choices("reproduce.ablation.columns", self.columns, (*COLUMNS, *self.autoencoders))
        _check_choices("reproduce.ablation.standardise", self.standardise, STANDARDISE)
        if self.training_runs < 1:
            raise InputError(f"reproduce.ablation.training_runs must be 1 or more; got {self.training_runs}")
        reserved = sorted({HANDMADE, HANDMADE_LAB, RESNET, RCNN} & set(self.autoencoders))
        if reserved:
            raise InputError(f"reproduce.ablation.autoencoders: {reserved[0]!r} is no autoencoder; choose another name")

    def autoencoder_of(self, column: str) -> dict[str, Any] | None:
        """Overrides of the run's section `autoencoder` for a column, or None if it is no autoencoder."""
        if column not in AUTOENCODER_COLUMNS and column not in self.autoencoders:
            return None
        return {**AUTOENCODER_COLUMNS.get(column, {}), **self.autoencoders.get(column, {})}


@dataclass
class OracleSettings:
    """Thesis Table 3.3.

    Attributes:
        normalizations: of the ResNeXt: "batch", "group".
        training_runs: trainings of each, with seeds that follow each other.
        network: overrides of `experiments.thesis.oracles.OracleConfig`.
    """

    normalizations: list[str] = field(default_factory=lambda: ["batch", "group"])
    training_runs: int = 1
    network: dict[str, Any] = field(default_factory=dict)

    def validate(self) -> None:
        """Check what the types do not say.

        Raises:
            InputError: naming the setting.
        """
        _check_choices("reproduce.oracle.normalizations", self.normalizations, ("batch", "group"))
        if self.training_runs < 1:
            raise InputError(f"reproduce.oracle.training_runs must be 1 or more; got {self.training_runs}")
        for taken in ("normalization", "seed"):
            if taken in self.network:
                raise InputError(f"reproduce.oracle.network.{taken}: is set elsewhere; leave it out")


@dataclass
class ReproduceSettings:
    """The thesis' experiments.

    Attributes:
        bottleneck: Table 3.1 and Figures 3.6 to 3.13.
        ablation: Table 3.2.
        oracle: Table 3.3.
        resnet_weights: of ResNet-RF's ResNet-101: "imagenet" (downloaded, with a checksum), the path of that file, or
            "random" for an untrained network where no weights can be had.
        resnet_image_size: side in pixels to which crops are resized for it.
        bootstrap: resamples behind each interval.
        figure_cells: cells in each row of sheets and reconstructions.
    """

    bottleneck: BottleneckSettings = field(default_factory=BottleneckSettings)
    ablation: AblationSettings = field(default_factory=AblationSettings)
    oracle: OracleSettings = field(default_factory=OracleSettings)
    resnet_weights: str = "imagenet"
    resnet_image_size: int = 224
    bootstrap: int = 1000
    figure_cells: int = 8

    def validate(self) -> None:
        """Check what the types do not say.

        Raises:
            InputError: naming the setting.
        """
        for part in (self.bottleneck, self.ablation, self.oracle):
            part.validate()
        for name, least in (("resnet_image_size", 32), ("bootstrap", 100), ("figure_cells", 1)):
            if getattr(self, name) < least:
                raise InputError(f"reproduce.{name} must be {least} or more; got {getattr(self, name)}")


def _check_choices(where: str, values: list[str], allowed: tuple[str, ...]) -> None:
    if not values or len(set(values)) != len(values):
        raise InputError(f"{where}: name one or more, each once; got {values}")
    for value in values:
        if value not in allowed:
            raise InputError(f"{where}: {value!r} is none of {', '.join(allowed)}")


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
        scheme: class map, see `experiments.centres.class_maps`.
        centres: by name.
        detector: training of the detector.
        extract: feature extraction.
        autoencoder: overrides of `autoencoder.config.AutoencoderConfig`.
        evaluate: the table.
        reproduce: the thesis' experiments, see `experiments.settings`.
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
