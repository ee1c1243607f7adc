import math

import pytest

from autoencoder.log import PATIENCE, CollapseWatch

CALM = {"latent_deviation": 0.2, "discriminator_loss": 0.8, "discriminator_accuracy": 0.6}


def watch(rows, caplog):
    watching = CollapseWatch(3)
    for number, row in enumerate(rows, start=1):
        watching.add(20 * number, {**CALM, **row})
    return [record.getMessage() for record in caplog.records]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"latent_deviation": 0.001}, "step 100: the latents have shrunk to a deviation of 0.001"),
        ({"discriminator_accuracy": 1.0}, "step 100: the discriminator knows the centre of nearly every cell"),
        (
            {"discriminator_accuracy": 0.33, "discriminator_loss": math.log(3)},
            "step 100: the discriminator only guesses",
        ),
    ],
)
def test_watch_warns_once_of_what_lasts(row, message, caplog):
    (warning,) = watch([row] * (3 * PATIENCE), caplog)
    assert warning.startswith(message)


def test_watch_is_quiet_where_nothing_lasts(caplog):
    shrunk = {"latent_deviation": 0.001}
    assert not watch([*[shrunk] * (PATIENCE - 1), {}] * 3, caplog)
    # A low accuracy alone is no guessing: the discriminator may just have confused two centres.
    assert not watch([{"discriminator_accuracy": 0.1, "discriminator_loss": 0.5}] * 20, caplog)


def test_watch_of_a_training_without_adversary_looks_at_the_latents_alone(caplog):
    watching = CollapseWatch(2)
    for step in range(PATIENCE):
        watching.add(step, {"latent_deviation": 1e-4})
    assert "lower beta" in caplog.text
