"""Table 3.2 of the thesis: which representation of the cells lets a classifier work across centres."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from autoencoder.config import HOUSEKEEPING, LENGTH, AutoencoderConfig
from experiments.evaluation.comparison import (
    Column,
    Comparison,
    Protocol,
    choose_standardised,
    compare_columns,
    foreign_columns,
    morphology_column,
    raw_column,
)
from experiments.evaluation.handcrafted import handcrafted_vectors
from experiments.evaluation.transfer import Vectors
from experiments.settings import HANDCRAFTED, HANDCRAFTED_LAB, MORPHOLOGY, RESNET
from experiments.thesis.study import Study
from mrcnn.files.provenance import file_hash

MAPPED = ("AE-RF", "AE-CFE")  # before and after adaptation, thesis Figure 3.14


def make_ablation(study: Study, protocol: Protocol, features: Mapping[str, Path] | None = None) -> Comparison:
    """Compute every column of Table 3.2, with vectors made elsewhere by the name of their column, and compare them."""
    settings = study.settings.reproduce.ablation
    cells = study.cells()
    foreign = foreign_columns(features or {}, cells)  # before hours of training
    columns = [*own_columns(study, settings.columns), *foreign]
    chosen = choose_standardised(columns, settings.standardise)
    return compare_columns(chosen, cells, protocol, study.cache)


def own_columns(study: Study, names: Sequence[str]) -> list[Column]:
    """The columns that this software computes, in the order of their names; autoencoders are trained together."""
    if RESNET in names:
        _resnet_vectors(study)  # kept in the cache; before hours of training, since weights may be missing
    trained = train_columns(study, names)
    columns = []
    for name in names:
        if name in trained:
            columns.append(Column(name, tuple(map(study.latents, trained[name])), _describe(study, name)))
        else:
            vectors, note = untrained_vectors(study, name)
            columns.append(Column(name, (vectors,), note))
    return columns


def train_columns(study: Study, names: Sequence[str], training_runs: int | None = None) -> dict[str, list[Path]]:
    """Train the autoencoders among some columns, as often as the settings say unless `training_runs` does.

    Returns:
        By column, the folder of each of its trainings; columns that are no autoencoders are left out.
    """
    settings = study.settings.reproduce.ablation
    overrides = {name: settings.autoencoder_of(name) for name in names if settings.autoencoder_of(name) is not None}
    runs = settings.training_runs if training_runs is None else training_runs
    wanted = [
        ({**values, "seed": study.autoencoder_config(values).seed + run}, None)
        for values in overrides.values()
        for run in range(runs)
    ]
    folders = study.train(wanted)
    return {name: folders[i * runs : (i + 1) * runs] for i, name in enumerate(overrides)}


def untrained_vectors(study: Study, name: str, backbone: str | None = None) -> tuple[Vectors, str]:
    """Vectors of a column that no autoencoder makes, of the cells of one backbone, and what to know of them."""
    if name in (HANDCRAFTED, HANDCRAFTED_LAB):
        standardise = name == HANDCRAFTED_LAB
        make = partial(handcrafted_vectors, standardise_crops=standardise)
        vectors = study.store_vectors("handcrafted", {"standardise": standardise}, make, backbone)
        crop = "the crop, each channel of it standardised in Lab first" if standardise else "the crop"
        return vectors, f"{name}: Lab histograms and histograms of oriented gradients of {crop}."
    if name == RESNET:
        return _resnet_vectors(study, backbone)
    if name == MORPHOLOGY:
        column = morphology_column(study.stores(backbone))
        return column.trainings[0], column.note
    # Reading them takes less time than a copy in the cache would, and no space.
    column = raw_column(study.stores(backbone), study.settings.evaluate.raw_features)
    return column.trainings[0], column.note


def _resnet_vectors(study: Study, backbone: str | None = None) -> tuple[Vectors, str]:
    from experiments.evaluation.resnet import resnet_vectors
    from mrcnn.training.imagenet import FILE_HASHES

    settings, seed = study.settings.reproduce, study.settings.seed
    weights, size = settings.resnet_weights, settings.resnet_image_size
    identity, note = {
        "imagenet": (FILE_HASHES["resnet101"], f"ResNet-101 trained on ImageNet, at {size} px"),
        "random": (
            f"random {seed}",
            "**not the thesis' column**: ResNet-101 with random weights, since no ImageNet weights were given "
            "(--weights)",
        ),
    }.get(weights) or (file_hash(weights), f"ResNet-101 with the weights {Path(weights).name}, at {size} px")
    make = partial(resnet_vectors, weights=weights, image_size=size, seed=seed)
    options = {"weights": identity, "image_size": size}
    return study.store_vectors("resnet", options, make, backbone), f"{RESNET}: {note}."


def _describe(study: Study, name: str) -> str:
    """Settings of an autoencoder's column in which it differs from the thesis' defaults."""
    settings = study.settings.reproduce.ablation
    config, plain = study.autoencoder_config(settings.autoencoder_of(name)), AutoencoderConfig().to_dict()
    told = (*HOUSEKEEPING, *LENGTH, "seed", "adaptation")
    if config.adaptation == "none":
        told += ("beta", "adaptation_warmup_steps", "source_centre")
    changed = {key: value for key, value in config.to_dict().items() if value not in (plain[key], None)}
    shown = [
        f"adaptation {config.adaptation}",
        f"{config.steps} steps" if config.steps else f"{config.epochs:g} epochs",
    ]
    shown += [f"{key.replace('_', ' ')} {value}" for key, value in changed.items() if key not in told]
    shown += [f"{settings.training_runs} trainings"] if settings.training_runs > 1 else []
    return f"{name}: autoencoder, {', '.join(shown)}."
