import numpy as np
import pytest

from benchmarks.adaptation_methods import BETAS, format_table, log_numbers, main, method_config, parse_betas
from benchmarks.latent_scores import centre_accuracy, type_accuracies
from mrcnn.files.errors import InputError


def cells(counts):
    """Centres and cell types of counts by (centre, type)."""
    centres = [centre for (centre, _), number in counts.items() for _ in range(number)]
    cell_types = [name for (_, name), number in counts.items() for _ in range(number)]
    return np.array(centres), np.array(cell_types)


def log_row(step, adaptation, seconds):
    losses = {"feature_loss": "0.5", "image_loss": "0.25", "adaptation_loss": str(adaptation)}
    return {"step": str(step), **losses, "latent_deviation": "0.1", "seconds": str(seconds)}


def test_parse_betas_keeps_the_default_of_methods_that_are_not_named():
    assert parse_betas(["mmd=2", "coral=1e3"]) == {**BETAS, "mmd": 2.0, "coral": 1000.0}
    for text in ("mmd", "none=1", "nosuch=1", "mmd=much"):
        with pytest.raises(InputError, match=f"--beta {text}"):
            parse_betas([text])


def test_method_config_scales_the_warm_up_with_the_length():
    settings = {"steps": 3000, "adaptation_warmup_steps": 1000, "log_every": 25, "latent_size": 7}
    config = method_config(settings, "coral", beta=2.0, steps=300, seed=4)
    assert (config.adaptation, config.beta, config.steps, config.seed) == ("coral", 2.0, 300, 4)
    assert (config.adaptation_warmup_steps, config.log_every, config.latent_size) == (100, 15, 7)


def test_centre_accuracy_is_chance_for_centres_alike_and_1_for_centres_apart():
    centres = np.repeat(["north", "river"], [1000, 50])
    alike, is_river = np.random.default_rng(0).normal(size=(1050, 1)), (centres == "river")[:, None]
    assert 0.4 < centre_accuracy(alike, centres, seed=0) < 0.6
    # The best cut lies in the middle, and a normal variable is below it with probability 0.69.
    assert centre_accuracy(alike + is_river, centres, seed=0) == pytest.approx(0.69, abs=0.05)
    assert centre_accuracy(alike + 20.0 * is_river, centres, seed=0) == 1.0


def test_type_accuracies_tell_the_own_centre_from_others():
    centres, cell_types = cells({("a", "x"): 20, ("a", "y"): 10, ("b", "x"): 10, ("b", "y"): 20, ("b", ""): 5})
    random = np.random.default_rng(0)
    vectors = random.normal(size=(65, 3)) + 20.0 * (cell_types == "y")[:, None]
    assert type_accuracies(vectors, centres, cell_types, seed=0) == (1.0, 1.0)
    # Where the centres show the types in opposite ways, each knows its own only.
    vectors[centres == "b"] *= -1
    vectors[centres == "b"] += 20.0
    assert type_accuracies(vectors, centres, cell_types, seed=0) == (1.0, 0.0)
    assert type_accuracies(vectors, centres, np.full(65, ""), seed=0) == (None, None)


def test_log_numbers_are_the_last_losses_and_the_median_time():
    numbers = log_numbers([log_row(10, 3, 30), log_row(20, 2, 32), log_row(30, 1, 33), log_row(35, 0.5, 53)])
    assert numbers["adaptation_loss"] == 0.5 and numbers["latent_deviation"] == 0.1
    assert numbers["seconds_per_step"] == pytest.approx(0.2)
    assert "seconds_per_step" not in log_numbers([log_row(10, 3, 30)])


def test_format_table_marks_what_is_missing():
    header, _, line = format_table([{"method": "none", "beta": None, "centre_accuracy": 0.98765}]).splitlines()
    assert header.split("|")[7].strip() == "domain accuracy"
    assert [part.strip() for part in line.split("|")[1:-1]] == ["none", *"-----", "0.988", *"---"]


def test_main_says_what_is_wrong_in_one_line(tmp_path, capsys):
    assert main([str(tmp_path / "none.h5")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and "none.h5" in error and error.count("\n") == 1
