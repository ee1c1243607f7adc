"""Study: the working folder of the thesis' experiments, with what tables and figures share.

    data/                     synthetic centres, where the configuration has some
    splits/                   training and test part of each centre
    <backbone>/               a run's `detector/` and `features/`, for each backbone that is asked for
    autoencoders/<name>/      each autoencoder under its settings and the hash of all that it depends on
    oracles/<name>/           the same for the networks of Table 3.3
    cache/                    vectors, predictions and scores by the hash of their inputs
    tables/, figures/         what is shown

Everything is made when it is first asked for, and reused as long as what it depends on is the same.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from experiments.cache import Cache
from experiments.centres.centre import Centre
from experiments.centres.class_maps import ClassMap
from experiments.centres.splits import Split
from experiments.evaluation.transfer import Cells, Vectors, make_cells
from experiments.pipeline import Pipeline
from experiments.settings import RunSettings
from experiments.thesis.training_jobs import EMBEDDING, TrainingJob, default_jobs, run_jobs
from mrcnn.feature_store import StoreReader
from mrcnn.files.errors import InputError
from mrcnn.files.provenance import hash_arrays, hash_json

log = logging.getLogger(__name__)

HASH_LENGTH = 12

Make = Callable[[StoreReader], np.ndarray]  # from an opened store to vectors of shape (n, d)


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
        self._pipelines: dict[str, Pipeline] = {}
        # Backbones and folders that were dealt with: overwriting makes everything again only once.
        self._detectors: set[str] = set()
        self._trained: set[Path] = set()
        self._described: dict[str, dict[str, Any]] = {}

    @property
    def backbone(self) -> str:
        """Backbone of the detector that Tables 3.2 and 3.3 use: the configuration's."""
        from mrcnn.config import SmearConfig

        return self.settings.detector.settings.get("BACKBONE", SmearConfig.BACKBONE)

    @cached_property
    def opened(self) -> dict[str, Centre]:
        """Every centre of the configuration, those that only the detector is trained on too."""
        return Pipeline(self.settings, overwrite=self.overwrite).open_centres()

    @property
    def centres(self) -> dict[str, Centre]:
        """The centres whose cells are compared."""
        return self.pipeline(self.backbone).study

    @property
    def compared(self) -> list[str]:
        """Their names, which need no look at the images."""
        return [name for name, centre in self.settings.centres.items() if centre.use == "all"]

    @property
    def class_map(self) -> ClassMap:
        """The cell types that are compared; those of all centres are the same."""
        return next(iter(self.centres.values())).class_map

    @cached_property
    def splits(self) -> dict[str, Split]:
        """Training and test part of each centre's labelled images, saved and reused."""
        return Pipeline(self.settings, centres=self.opened).splits()

    @property
    def source_centre(self) -> str:
        """The centre that the others are brought to."""
        return self.settings.autoencoder.get("source_centre") or self.compared[0]

    def pipeline(self, backbone: str) -> Pipeline:
        """The run of one backbone's detector, in a folder of its own."""
        if backbone not in self._pipelines:
            detector = self.settings.detector
            detector = detector.replace(settings={**detector.settings, "BACKBONE": backbone})
            settings = self.settings.replace(detector=detector, output=str(self.output / backbone))
            self._pipelines[backbone] = Pipeline(settings, overwrite=self.overwrite, centres=self.opened)
        return self._pipelines[backbone]

    def detector(self, backbone: str) -> Pipeline:
        """The run of a backbone, with its detector trained: once, though several tables and figures ask for it."""
        pipeline = self.pipeline(backbone)
        if backbone not in self._detectors:
            pipeline.train_detector()
            self._detectors.add(backbone)
        return pipeline

    def stores(self, backbone: str | None = None) -> dict[str, Path]:
        """Feature store of each centre, made by the detector of a backbone, by default the configuration's."""
        pipeline = self.detector(backbone or self.backbone)
        if pipeline.output not in self._trained:
            pipeline.extract()
            self._trained.add(pipeline.output)
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
        from mrcnn.feature_store import open_store

        image_ids, types = {}, {}
        for name, path in self.stores(backbone).items():
            with open_store(path) as store:
                image_ids[name] = store.image_ids
            types[name] = self._current_types(name, image_ids[name])
        parts = {name: self.splits[name].parts(own) for name, own in image_ids.items()}
        return make_cells(image_ids, types, parts, self.class_map.classes)

    def autoencoder_config(self, overrides: Mapping[str, Any]) -> dict[str, Any]:
        """All settings of an autoencoder: the configuration's, changed by `overrides`, and checked."""
        from autoencoder.config import AutoencoderConfig

        values = {"seed": self.settings.seed, **self.settings.autoencoder, **overrides}
        return AutoencoderConfig.from_dict(values).to_dict()

    def autoencoder_folder(self, overrides: Mapping[str, Any], backbone: str | None = None) -> Path:
        """Where the autoencoder of some settings lies, or will lie."""
        from autoencoder.config import HOUSEKEEPING

        config = self.autoencoder_config(overrides)
        kept = {name: value for name, value in config.items() if name not in HOUSEKEEPING}
        # A list, since the order of the centres decides which is the source.
        inputs: dict[str, Any] = {"config": kept, "stores": list(self.described(backbone).items())}
        if config["balance"] == "type":
            inputs["types"] = self._stored_types(backbone)
        names = (config["adaptation"], config["latent_size"], config["image_source"], config["image_loss"])
        name = "-".join([backbone or self.backbone, *map(str, names), hash_json(inputs)[:HASH_LENGTH]])
        return self.output / "autoencoders" / name

    def _current_types(self, centre: str, image_ids: np.ndarray) -> np.ndarray:
        """Cell type of each image_id's image, str array of shape (n,)."""
        type_of = {record.image_id: record.cell_type for record in self.centres[centre].records}
        return np.array([type_of[image_id] for image_id in image_ids.tolist()], str)

    def _stored_types(self, backbone: str | None) -> str:
        """Hash of the types in the stores, by which balance "type" draws cells; refused if no longer the images'."""
        from mrcnn.feature_store import open_store

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
        """Train and embed autoencoders, as far as they are not there.

        Args:
            wanted: for each, overrides of the configuration's settings, and the backbone or None for its own.

        Returns:
            Folder of each, in the same order.
        """
        from autoencoder.embedding import is_embedding_of

        folders = [self.autoencoder_folder(*each) for each in wanted]
        parts = {name: split.part_of for name, split in self.splits.items()}
        jobs = {
            folder: TrainingJob(self.autoencoder_config(overrides), self.stores(backbone), folder, parts)
            for folder, (overrides, backbone) in zip(folders, wanted, strict=True)
            if folder not in self._trained
        }
        missing = [
            job for job in jobs.values() if self.overwrite or not is_embedding_of(job.folder / EMBEDDING, job.folder)
        ]
        if missing:
            log.info("%d autoencoders to train, %d are there", len(missing), len(set(folders)) - len(missing))
        run_jobs(missing, self.jobs or default_jobs(), resume=not self.overwrite)
        self._trained.update(jobs)
        return folders

    def latents(self, folder: Path, backbone: str | None = None) -> Vectors:
        """Latents of all cells, by centre, rows as in the stores."""
        from experiments.evaluation.vectors import read_vectors

        table = read_vectors(folder / EMBEDDING)
        return {name: table[name][0] for name in self.stores(backbone)}

    def weights_hash(self, folder: Path) -> str:
        """SHA-256 of the weights of a trained autoencoder."""
        from autoencoder.folder import read_run

        return (read_run(folder) or {}).get("weights_sha256", "")

    def store_vectors(self, kind: str, options: Mapping[str, Any], make: Make, backbone: str | None = None) -> Vectors:
        """Vectors that are computed from each store by itself, and kept.

        Args:
            kind: what they are, for the cache.
            options: what they depend on beside the store.
            make: function of an opened store that returns an array of shape (n, d).
            backbone: of the detector.
        """
        from mrcnn.feature_store import open_store

        vectors = {}
        for name, path in self.stores(backbone).items():
            inputs = {"store": self.described(backbone)[name], **options}

            def compute(path: Path = path) -> dict[str, np.ndarray]:
                with open_store(path) as store:
                    return {"vectors": make(store)}

            vectors[name] = self.cache.arrays(kind, inputs, compute)["vectors"]
        return vectors

    def config_hash(self) -> str:
        """Hash of all settings but where data and results lie, for tables and figures to name."""
        return hash_json(self.settings.model_dump(mode="json", exclude={"output", "data"}))[:HASH_LENGTH]
