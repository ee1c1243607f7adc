"""Study: the working folder of the thesis' experiments, with what tables and figures share.

    data/                     synthetic centres, where the configuration has some
    splits/                   training and test part of each centre
    <backbone>/               a run's `detector/` and `features/`, for each backbone that is asked for
    autoencoders/<name>/      each autoencoder under its settings and the hash of all that it depends on
    oracles/<name>/           the same for the networks of Table 3.3
    cache/                    vectors, predictions and scores by the hash of their inputs
    tables/, figures/         what is shown

Everything is made when it is first asked for, and reused as long as what it depends on is the same. A `backbone` of
None is the configuration's.
"""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from autoencoder.config import HOUSEKEEPING, AutoencoderConfig
from experiments.cache import Cache
from experiments.cells.models import detector_folder
from experiments.centres.centre import Centre
from experiments.centres.class_maps import ClassMap
from experiments.centres.splits import Split
from experiments.evaluation.transfer import Cells, Vectors, make_cells
from experiments.evaluation.vectors import read_vectors
from experiments.pipeline import Pipeline
from experiments.settings import RunSettings
from experiments.thesis.training_jobs import EMBEDDING, TrainingJob, default_jobs, run_jobs
from mrcnn.config import SmearConfig
from mrcnn.feature_store import FeatureStore, open_store
from mrcnn.files.errors import InputError
from mrcnn.files.provenance import hash_arrays, hash_json

log = logging.getLogger(__name__)

HASH_LENGTH = 12


class Study:
    """Everything that the experiments work on.

    Args:
        settings: of the run; `settings.output` is the working folder.
        jobs: autoencoders to train at a time; None for `training_jobs.default_jobs`.
        overwrite: make everything again that this study is asked for.
    """

    def __init__(self, settings: RunSettings, *, jobs: int | None = None, overwrite: bool = False):
        self.settings, self.jobs, self.overwrite = settings, jobs, overwrite
        self.output = Path(settings.output)
        self.cache = Cache(self.output / "cache", overwrite=overwrite)
        self._detectors: dict[str, Pipeline] = {}
        self._described: dict[str, dict[str, Any]] = {}
        # Folders that were dealt with: overwriting makes everything again only once.
        self._done: set[Path] = set()

    @cached_property
    def backbone(self) -> str:
        """Backbone of the detector that Tables 3.2 and 3.3 use: the configuration's, or that of the one it takes."""
        if not self.settings.detector.is_trained:
            from mrcnn.training.folder import read_settings

            return read_settings(detector_folder(self.settings.detector.folder))["BACKBONE"]
        return self.settings.detector.settings.get("BACKBONE", SmearConfig.BACKBONE)

    @cached_property
    def opened(self) -> dict[str, Centre]:
        """Every centre of the configuration, those that only the detector is trained on too."""
        return Pipeline(self.settings, overwrite=self.overwrite).open_centres()

    @property
    def compared(self) -> list[str]:
        """Names of the centres whose cells are compared."""
        return [name for name, centre in self.settings.centres.items() if centre.use == "all"]

    @property
    def centres(self) -> dict[str, Centre]:
        """The centres whose cells are compared."""
        return {name: self.opened[name] for name in self.compared}

    @property
    def class_map(self) -> ClassMap:
        """The cell types that are compared; those of all centres are the same."""
        return self.opened[self.compared[0]].class_map

    @cached_property
    def splits(self) -> dict[str, Split]:
        """Training and test part of each centre's labelled images, saved and reused."""
        return Pipeline(self.settings, centres=self.opened).splits()

    def detector(self, backbone: str | None = None) -> Pipeline:
        """The run of a backbone, in a folder of its own, with its detector trained."""
        backbone = backbone or self.backbone
        if backbone not in self._detectors:
            detector = self.settings.detector
            if not detector.is_trained and backbone != self.backbone:
                raise InputError(
                    f"detector: its backbone is {self.backbone}, and {backbone} is asked for too; train it "
                    "(detector.train_on), or change reproduce.bottleneck.backbones"
                )
            if detector.is_trained:
                detector = detector.replace(settings={**detector.settings, "BACKBONE": backbone})
            settings = self.settings.replace(detector=detector, output=str(self.output / backbone))
            self._detectors[backbone] = Pipeline(settings, overwrite=self.overwrite, centres=self.opened)
            self._detectors[backbone].train_detector()
        return self._detectors[backbone]

    def stores(self, backbone: str | None = None) -> dict[str, Path]:
        """Feature store of each centre, made by the detector of a backbone."""
        pipeline = self.detector(backbone)
        if pipeline.output not in self._done:
            pipeline.extract()
            self._done.add(pipeline.output)
        return pipeline.stores

    def described(self, backbone: str | None = None) -> dict[str, dict[str, Any]]:
        """What each store holds, without where it lies: what results depend on."""
        from autoencoder.folder import describe_stores

        backbone = backbone or self.backbone
        if backbone not in self._described:
            self._described[backbone] = describe_stores(self.stores(backbone))
            for store in self._described[backbone].values():
                del store["path"]
        return self._described[backbone]

    def cells(self, backbone: str | None = None) -> Cells:
        """The cells that a backbone's detector found, with their types and parts of the split.

        Types are those of the images now; stores hold what they were when the cells were found.
        """
        image_ids, types = {}, {}
        for name, path in self.stores(backbone).items():
            with open_store(path) as store:
                image_ids[name] = store.image_ids
            types[name] = self._current_types(name, image_ids[name])
        parts = {name: self.splits[name].parts(own) for name, own in image_ids.items()}
        return make_cells(image_ids, types, parts, self.class_map.classes)

    def _current_types(self, centre: str, image_ids: np.ndarray) -> np.ndarray:
        """Cell type of each image, str array of shape (n,)."""
        type_of = {record.image_id: record.cell_type for record in self.centres[centre].records}
        return np.array([type_of[image_id] for image_id in image_ids.tolist()], str)

    def autoencoder_config(self, overrides: Mapping[str, Any]) -> AutoencoderConfig:
        """The configuration's settings of an autoencoder, changed by `overrides`, and checked."""
        return AutoencoderConfig.from_dict({"seed": self.settings.seed, **self.settings.autoencoder, **overrides})

    def autoencoder_folder(self, overrides: Mapping[str, Any], backbone: str | None = None) -> Path:
        """Where the autoencoder of some settings lies, or will lie."""
        config = self.autoencoder_config(overrides)
        kept = {name: value for name, value in config.to_dict().items() if name not in HOUSEKEEPING}
        # A list, since the order of the centres decides which is the source.
        inputs: dict[str, Any] = {"config": kept, "stores": list(self.described(backbone).items())}
        if config.balance == "type":
            inputs["types"] = self._stored_types(backbone)
        names = (config.adaptation, config.latent_size, config.image_source, config.image_loss)
        name = "-".join([backbone or self.backbone, *map(str, names), hash_json(inputs)[:HASH_LENGTH]])
        return self.output / "autoencoders" / name

    def _stored_types(self, backbone: str | None) -> str:
        """Hash of the types in the stores, by which balance "type" draws cells; refused if no longer the images'."""
        found = []
        for name, path in self.stores(backbone).items():
            with open_store(path) as store:
                found.append(store.cell_types)
                if not np.array_equal(store.cell_types, self._current_types(name, store.image_ids)):
                    raise InputError(
                        f"{path}: holds other cell types than the images have now, which balance 'type' goes by; "
                        "delete it, and it is made again"
                    )
        return hash_arrays(*found)

    def train(self, wanted: Sequence[tuple[Mapping[str, Any], str | None]]) -> list[Path]:
        """Train and embed autoencoders, as far as they are not there; returns the folder of each.

        Of each, overrides of the configuration's settings and the backbone are wanted.
        """
        from autoencoder.embedding import is_embedding_of

        folders = [self.autoencoder_folder(*each) for each in wanted]
        parts = {name: split.part_of for name, split in self.splits.items()}
        missing = {
            folder: TrainingJob(self.autoencoder_config(overrides), self.stores(backbone), folder, parts)
            for folder, (overrides, backbone) in zip(folders, wanted, strict=True)
            if folder not in self._done and (self.overwrite or not is_embedding_of(folder / EMBEDDING, folder))
        }
        if missing:
            log.info("%d autoencoders to train, %d are there", len(missing), len({*folders}) - len(missing))
        run_jobs(list(missing.values()), self.jobs or default_jobs(), resume=not self.overwrite)
        self._done.update(folders)
        return folders

    def latents(self, folder: Path) -> Vectors:
        """Latents of all cells by a trained autoencoder, by centre, rows as in the stores."""
        return {name: vectors for name, (vectors, _) in read_vectors(folder / EMBEDDING).items()}

    def weights_hashes(self, folders: Iterable[Path]) -> dict[str, str]:
        """SHA-256 of the weights of trained autoencoders, by the name of their folder."""
        from autoencoder.folder import read_run

        return {folder.name: (read_run(folder) or {}).get("weights_sha256", "") for folder in folders}

    def store_vectors(
        self, kind: str, options: Mapping[str, Any], make: Callable[[FeatureStore], np.ndarray], backbone: str | None
    ) -> Vectors:
        """Vectors of shape (n, d) that `make` computes from each opened store, kept in the cache as `kind`.

        `options` are what they depend on beside the store.
        """
        vectors = {}
        for name, path in self.stores(backbone).items():

            def compute(path: Path = path) -> dict[str, np.ndarray]:
                with open_store(path) as store:
                    return {"vectors": make(store)}

            inputs = {"store": self.described(backbone)[name], **options}
            vectors[name] = self.cache.arrays(kind, inputs, compute)["vectors"]
        return vectors

    def config_hash(self) -> str:
        """Hash of all settings but where data and results lie, for tables and figures to name."""
        return hash_json(self.settings.model_dump(mode="json", exclude={"output", "data"}))[:HASH_LENGTH]
