"""Pipeline of `aecfe run`, stage by stage, in one run folder. Every stage that is done is reused."""

import dataclasses
import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.cells.models import detector_folder
from experiments.centres.centre import Centre, load_centre
from experiments.centres.masks import AnnotationChoice, choice_of_settings, masked_images
from experiments.reports.run_folder import AUTOENCODERS
from experiments.settings import CentreSettings, RunSettings
from experiments.synthetic.centre import generate_centre
from mrcnn.files.atomic import OutputLock, write_json
from mrcnn.files.errors import InputError

if TYPE_CHECKING:
    from experiments.centres.splits import Split

log = logging.getLogger(__name__)

CONFIG = "config.json"
EMBEDDING = "embedding.h5ad"
SPLITS = "splits"


class Pipeline:
    """A run: its settings, its folder and its centres.

    Args:
        settings: of the run.
        overwrite: make everything again.
        centres: as another run opened them, so that they are neither made nor listed again; None opens them here.
    """

    def __init__(self, settings: RunSettings, *, overwrite: bool = False, centres: dict[str, Centre] | None = None):
        self.settings, self.overwrite = settings, overwrite
        self.output = Path(settings.output)
        self._centres = centres

    def run(self) -> Path:
        """Run every stage and return the path of the report.

        Raises:
            InputError: if another run is writing this folder, or what a stage raises.
        """
        self.check_autoencoder_settings()
        with OutputLock(self.output, inside=True):
            return self._run_stages()

    def _run_stages(self) -> Path:
        write_json(self.output / CONFIG, self.settings.to_dict())
        stages = (
            ("centres", self.open_centres),
            ("detector", self.train_detector),
            ("detector evaluation", self.evaluate_detector),
            ("features", self.extract),
            ("autoencoders", self.train_autoencoders),
            ("latents", self.embed),
            ("table", self.evaluate),
            ("report", self.report),
        )
        seconds: dict[str, float] = {}
        for number, (name, stage) in enumerate(stages, 1):
            log.info("[%d/%d] %s", number, len(stages), name)
            started = time.monotonic()
            result = stage()
            seconds[name] = round(time.monotonic() - started, 1)
            log.info("[%d/%d] %s: %.0f s", number, len(stages), name, seconds[name])
        write_json(self.output / "timings.json", seconds)
        return result

    def open_centres(self) -> dict[str, Centre]:
        """List the images of every centre, making the synthetic ones first."""
        if self._centres is None:
            trains = self.settings.detector.is_trained
            wanted = {name: s for name, s in self.settings.centres.items() if trains or s.use == "all"}
            self._centres = {name: self._open(name, s) for name, s in wanted.items()}
        return self._centres

    def _open(self, name: str, settings: CentreSettings) -> Centre:
        root, layout = Path(self.settings.data) / settings.root, settings.layout
        if layout == "synthetic":
            root, layout = self.output / "data" / name, "csv"
            options = {"num_images": settings.num_images, "seed": self.settings.seed, "overwrite": self.overwrite}
            generate_centre(name, root, **options)
        annotations = root / settings.annotations if settings.annotations else None
        centre = load_centre(name, root, layout, self.settings.scheme, annotations=annotations)
        excluded = set(settings.exclude_labels)
        unknown = excluded - {record.label for record in centre.records}
        if unknown:
            raise InputError(f"centres.{name}.exclude_labels: no image is labelled {', '.join(sorted(unknown))}")
        kept = [record for record in centre.records if record.label not in excluded]
        if excluded:
            log.info("%s: %d images left out by their label", name, len(centre.records) - len(kept))
        return dataclasses.replace(centre, records=kept)

    @property
    def annotation_choices(self) -> dict[str, AnnotationChoice]:
        """What the settings say of the masks of each centre."""
        settings = self.settings.centres
        return {name: choice_of_settings(settings[name], centre.root) for name, centre in self.open_centres().items()}

    @property
    def study(self) -> dict[str, Centre]:
        """The centres whose cells are compared: all but those that only the detector is trained on."""
        return {n: c for n, c in self.open_centres().items() if self.settings.centres[n].use == "all"}

    @property
    def stores(self) -> dict[str, Path]:
        """Path of each centre's feature store."""
        return {name: self.output / "features" / f"{name}.h5" for name in self.study}

    def train_detector(self) -> None:
        """Train the detector on `detector.train_on`, or take a trained one."""
        from experiments.cells.detector import take_detector, train_detector

        settings = self.settings.detector
        if not settings.is_trained:
            take_detector(detector_folder(settings.folder), self.output / "detector", overwrite=self.overwrite)
            return
        images = masked_images({n: self.open_centres()[n] for n in settings.train_on}, self.annotation_choices)
        folder = self.output / "detector"
        train_detector(images, folder, settings=settings, seed=self.settings.seed, overwrite=self.overwrite)

    def evaluate_detector(self) -> dict[str, dict[str, Any]]:
        """Measure the detector on every centre; written to `detector/metrics.json`."""
        from experiments.cells.detector import evaluate_detector
        from mrcnn.training.folder import METRICS, read_metrics, write_metrics

        folder = self.output / "detector"
        known = None if self.overwrite else read_metrics(folder)
        if known is not None and set(known) == set(self.open_centres()):
            log.info("%s: reused", folder / METRICS)
            return known
        measured = evaluate_detector(
            folder,
            self.open_centres(),
            self.annotation_choices,
            {n: c.box_names for n, c in self.settings.centres.items()},
            min_score_for_ap=self.settings.detector.min_score_for_ap,
        )
        write_metrics(folder, measured)
        return measured

    def extract(self) -> None:
        """Extract the features of every centre that is compared."""
        from mrcnn.features import extract_features
        from mrcnn.model import load_detector

        settings = self.settings.extract
        detector = load_detector(self.output / "detector")
        for name, centre in self.study.items():
            counts = extract_features(
                detector,
                centre.records,
                self.stores[name],
                centre=name,
                all_cells=settings.all_cells,
                with_masks=settings.masks,
                batch_size=settings.batch_size,
                overwrite=self.overwrite,
            )
            found = "{found} of {images} images ({missed} missed, {unreadable} unreadable)".format_map(counts)
            log.info("%s: a cell on %s", name, found)

    def check_autoencoder_settings(self) -> dict[str, Any]:
        """The autoencoders' configurations by column, checked before anything long begins."""
        from autoencoder.config import AutoencoderConfig

        adapted = AutoencoderConfig.from_dict({"seed": self.settings.seed, **self.settings.autoencoder})
        configs = {"AE-CFE": adapted, "AE-RF": adapted.replace(adaptation="none")}
        return {method: configs[method] for method in AUTOENCODERS if method in self.settings.evaluate.methods}

    def train_autoencoders(self) -> None:
        """Train one autoencoder with adaptation and one without, as far as the table asks for them."""
        from autoencoder.training import train_autoencoder

        for method, config in self.check_autoencoder_settings().items():
            train_autoencoder(config, self.stores, self.output / AUTOENCODERS[method], resume=not self.overwrite)

    def splits(self) -> "dict[str, Split]":
        """Training and test part of each centre's labelled images, saved in `splits/` and reused.

        Images of one group, and copies of the same file, are in the same part.
        """
        from experiments.centres.duplicates import duplicate_sets, remembered_hashes
        from experiments.centres.splits import load_or_make_split

        splits, folder = {}, self.output / SPLITS
        for name, centre in self.study.items():
            image_ids, types = zip(*((r.image_id, r.cell_type) for r in centre.records), strict=True)
            hashes = remembered_hashes(centre.records, folder / "content" / f"{name}.json", f"hash {name}")
            groups, copies = self._groups(name), duplicate_sets(hashes)
            path = folder / f"{name}.json"
            splits[name] = load_or_make_split(path, name, image_ids, types, groups=groups, duplicates=copies)
        return splits

    def _groups(self, name: str) -> dict[str, str] | None:
        """Group of each image of a centre, as its settings ask for."""
        from experiments.centres.splits import read_groups

        settings = self.settings.centres[name]
        if not settings.group_column:
            return None
        centre = self.open_centres()[name]
        # Of all images, since the file may also list those of labels that are left out.
        whole = load_centre(name, centre.root, centre.layout, self.settings.scheme)
        image_ids, where = [record.image_id for record in whole.records], f"centres.{name}.group_column"
        return read_groups(centre.root / settings.group_file, settings.group_column, image_ids, where)

    def embed(self) -> None:
        """Write the latents of every cell to `embedding.h5ad` beside each autoencoder."""
        from autoencoder.embedding import embed, is_embedding_of

        parts = {name: split.part_of for name, split in self.splits().items()}
        for method in self.check_autoencoder_settings():
            folder = self.output / AUTOENCODERS[method]
            if not self.overwrite and is_embedding_of(folder / EMBEDDING, folder):
                log.info("%s: reused", folder / EMBEDDING)
                continue
            embed(folder, self.stores, folder / EMBEDDING, splits=parts)

    def evaluate(self) -> dict[str, Path]:
        """Train the random forests and write the cross-centre tables; returns their paths by ending."""
        from experiments.evaluation.comparison import Protocol
        from experiments.evaluation.evaluate import evaluate_files

        settings = self.settings.evaluate
        return evaluate_files(
            self.stores,
            {m: self.output / AUTOENCODERS[m] / EMBEDDING for m in self.check_autoencoder_settings()},
            self.output / "tables",
            Protocol("random-forest", settings.runs, self.settings.seed, settings.test_on),
            methods=settings.methods,
            splits=self.splits(),
            raw_features=settings.raw_features,
            provenance={},  # config.json and the run.json of each model have it
        )

    def report(self) -> Path:
        """Write `report.html`."""
        from experiments.reports.report import write_report

        records = {name: centre.records for name, centre in self.study.items()}
        return write_report(self.output, self.settings, records=records, seed=self.settings.seed)
