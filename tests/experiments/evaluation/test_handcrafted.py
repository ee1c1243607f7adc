"""Handcrafted features of crops whose colours and edges are known."""

import numpy as np
import pytest

from experiments.evaluation import handcrafted
from experiments.evaluation.handcrafted import BINS, VECTOR_SIZE, handcrafted_vectors

COLOURS = 3 * BINS


@pytest.fixture
def vectors_of(make_store):
    return lambda crops, **options: handcrafted_vectors(make_store(crops), **options)


def noise(number=3, seed=0):
    return np.random.default_rng(seed).integers(60, 200, (number, 128, 128, 3)).astype(np.uint8)


def stripes(axis):
    """Bands of two greys, 8 px wide, that lie one after the other along `axis`."""
    band = np.where(np.arange(128) // 8 % 2, 180, 80).astype(np.uint8)
    flat = np.broadcast_to(band if axis == 1 else band[:, np.newaxis], (128, 128))
    return np.repeat(flat[..., np.newaxis], 3, axis=2)


def test_handcrafted_vectors_have_histograms_of_sum_1_and_finite_gradients(vectors_of, monkeypatch):
    monkeypatch.setattr(handcrafted, "_READ_ROWS", 2)
    for options in ({}, {"standardise_crops": True}):
        vectors = vectors_of(noise(), **options)
        np.testing.assert_array_equal(vectors_of(noise()[::-1], **options), vectors[::-1])
        assert vectors.shape == (3, 420) == (3, VECTOR_SIZE) and vectors.dtype == np.float32
        np.testing.assert_allclose(vectors[:, :COLOURS].reshape(3, 3, BINS).sum(axis=2), 1.0, rtol=1e-5)
        assert np.isfinite(vectors).all() and np.all(vectors >= 0)


def test_handcrafted_vectors_of_one_colour_are_in_its_bins_and_without_edges(vectors_of):
    crops = np.zeros((4, 128, 128, 3), np.uint8)
    crops[1], crops[2], crops[3] = 255, 119, (255, 0, 255)
    vectors = vectors_of(crops)
    bins = vectors[:, :COLOURS].reshape(4, 3, BINS)
    assert np.all(np.sort(bins, axis=2)[..., -1] == 1.0)
    found = bins.argmax(axis=2)
    # L of black, white and of the grey 119 is 0, 100 and 50.03; a and b of greys are 0.
    np.testing.assert_array_equal(found[:3], [[0, 16, 16], [31, 16, 16], [16, 16, 16]])
    # Magenta has L 60.3, a 98.2, which is outside the range, and b -60.8, which is in the second bin from -66.
    assert found[3].tolist() == [19, 31, 1]
    assert not vectors[:, COLOURS:].any()


def test_handcrafted_vectors_tell_the_direction_of_edges(vectors_of):
    vectors = vectors_of(np.stack([stripes(axis=0), stripes(axis=1)]))[:, COLOURS:].reshape(2, -1, 9)
    strongest = vectors.sum(axis=1).argmax(axis=1)
    assert strongest[0] != strongest[1] and abs(int(strongest[0]) - int(strongest[1])) in (4, 5)  # a right angle
    np.testing.assert_allclose(vectors.sum(axis=1).max(axis=1), vectors.sum(axis=(1, 2)), rtol=1e-3)


def test_standardised_crops_hide_the_stain_but_keep_the_edges(vectors_of, monkeypatch):
    random = np.random.default_rng(0)
    lab = np.stack([random.normal(mean, 5.0, (128, 128)) for mean in (60, 10, -10)], axis=-1).astype(np.float32)
    other = lab * np.float32([1.5, 0.8, 1.2]) + np.float32([-60, 30, 40])
    # The stains are made in Lab, where rounding to bytes and the limits of RGB are not in the way.
    monkeypatch.setattr(handcrafted, "rgb2lab", lambda crops: np.stack([lab, other]))
    crops = noise(2)
    plain, standard = vectors_of(crops), vectors_of(crops, standardise_crops=True)
    assert np.abs(plain[0, :COLOURS] - plain[1, :COLOURS]).sum() > 3  # of 6, which is no overlap at all
    np.testing.assert_allclose(standard[0, :COLOURS], standard[1, :COLOURS], atol=1e-3)
    np.testing.assert_allclose(standard[0, COLOURS:], standard[1, COLOURS:], atol=1e-3)
    # The share within one deviation of the mean is that of a normal distribution.
    shares = standard[0, :COLOURS].reshape(3, BINS)
    edges = np.linspace(-3, 3, BINS + 1)
    inside = (edges[:-1] >= -1) & (edges[1:] <= 1)
    np.testing.assert_allclose(shares[:, inside].sum(axis=1), 0.653, atol=0.02)  # from -0.9375 to 0.9375
