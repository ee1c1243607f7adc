import math

import pytest

from autoencoder.collapse import PATIENCE, CollapseWatch

CALM = {"latent_deviation": 0.2, "discriminator_loss": 0.8, "discriminator_accuracy": 0.6}


def watch(rows, caplog):
    watching = CollapseWatch(3)
    for number, row in enumerate(rows, start=1):
        watching.on_epoch_end(number, {**CALM, **row, "step": 20 * number})
    return [record.getMessage() for record in caplog.records]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"latent_deviation": 0.001}, "the latents have shrunk"),
        ({"discriminator_accuracy": 1.0}, "knows the centre of nearly every cell"),
        ({"discriminator_accuracy": 0.33, "discriminator_loss": math.log(3)}, "the discriminator only guesses"),
    ],
)
def test_watch_warns_once_of_what_lasts(row, message, caplog):
    (warning,) = watch([row] * (3 * PATIENCE), caplog)
    assert warning.startswith("step 100: ") and message in warning


def test_watch_is_quiet_where_nothing_lasts(caplog):
    assert not watch([*[{"latent_deviation": 0.001}] * (PATIENCE - 1), {}] * 3, caplog)
    # A low accuracy alone is no guessing: the discriminator may just have confused two centres.
    assert not watch([{"discriminator_accuracy": 0.1, "discriminator_loss": 0.5}] * 20, caplog)
