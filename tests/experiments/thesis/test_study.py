import dataclasses
from unittest.mock import MagicMock

import numpy as np
import pytest

from experiments.pipeline import Pipeline
from experiments.thesis import study as study_module
from experiments.thesis.study import Study
from mrcnn.files.errors import InputError


def relabel(study, centre, number, cell_type):
    """Give an image another type, as a corrected labels.csv does."""
    records = study.opened[centre].records
    records[number] = dataclasses.replace(records[number], label=cell_type, cell_type=cell_type)


def test_cells_have_the_types_that_the_images_have_now(make_study):
    assert make_study().cells().types["anna"][0] == "monocyte"
    study = make_study()
    relabel(study, "anna", 0, "eosinophil")
    # The split is of the labels, and a saved one of others is refused.
    with pytest.raises(InputError, match="anna.json: is there already"):
        study.cells()
    (study.output / "splits" / "anna.json").unlink()
    assert study.cells().types["anna"][0] == "eosinophil" and study.cells().counts["anna"]["eosinophil"] == 11


def test_an_autoencoder_that_learns_from_types_is_another_for_other_types(make_study):
    study = make_study()
    plain, by_type = ({"balance": balance} for balance in ("none", "type"))
    before, _ = study.autoencoder_folder(plain), study.autoencoder_folder(by_type)
    relabel(study, "bert", 1, "monocyte")
    assert study.autoencoder_folder(plain) == before
    with pytest.raises(InputError, match="bert.h5: holds other cell types than the images have now.*delete it"):
        study.autoencoder_folder(by_type)


def test_the_folder_of_an_autoencoder_tells_its_settings_and_nothing_of_housekeeping(make_study):
    study = make_study()
    folder = study.autoencoder_folder({"adaptation": "none", "latent_size": 7})
    assert folder.name.startswith("resnet50-none-7-crop-ssim-")
    assert study.autoencoder_folder({"adaptation": "none", "latent_size": 7, "checkpoint_every": 3}) == folder
    for change in ({"seed": 1}, {"steps": 3}, {"image_size": 64}):
        assert study.autoencoder_folder({"adaptation": "none", "latent_size": 7, **change}) != folder


def test_train_passes_on_jobs_and_overwrite_and_trains_each_once(make_study, monkeypatch):
    run_jobs, study = MagicMock(), make_study()
    monkeypatch.setattr(study_module, "run_jobs", run_jobs)
    study.jobs, study.overwrite = 3, True
    wanted = [({"latent_size": size}, None) for size in (3, 4, 3)]
    folders = study.train(wanted)
    assert folders[0] == folders[2] != folders[1]
    study.train(wanted)  # for another table
    assert [[job.folder for job in call.args[0]] for call in run_jobs.call_args_list] == [folders[:2], []]
    assert run_jobs.call_args.args[1:] == (3,) and run_jobs.call_args.kwargs == {"resume": False}


def test_a_detector_is_trained_and_applied_once_though_everything_is_made_again(make_study, monkeypatch):
    work = []
    for name in ("train_detector", "extract"):
        monkeypatch.setattr(Pipeline, name, lambda p, n=name: work.append((n, p.output.name, p.overwrite)))
    study = make_study()
    study.stores = Study.stores.__get__(study)  # the fixture's study has stores already
    study.overwrite = True
    for backbone in (None, "resnet50", "resnet101"):
        study.detector(backbone)
        study.stores(backbone)
    assert work == [
        (name, backbone, True) for backbone in ("resnet50", "resnet101") for name in ("train_detector", "extract")
    ]


def test_config_hash_tells_settings_and_not_places(make_study, tmp_path):
    places = (("a", 100), ("b", 100), ("b", 200))
    hashes = [make_study(tmp_path / name, bootstrap=number).config_hash() for name, number in places]
    assert hashes[0] == hashes[1] != hashes[2]


def test_store_vectors_are_kept_by_store_and_options(make_study):
    study, make = make_study(), MagicMock(return_value=np.zeros((20, 1)))
    for options in ({"size": 1}, {"size": 1}, {"size": 2}):
        assert study.store_vectors("kind", options, make, None)["anna"].shape == (20, 1)
    assert make.call_count == 2 * 2  # centres, and sizes
