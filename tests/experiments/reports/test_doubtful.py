import numpy as np
import pytest

from experiments.reports.quality import doubtful_rows, doubts


class Store:
    """The columns of a store in memory."""

    def __init__(self, **columns):
        self.columns = columns

    def __len__(self):
        return len(self.columns["score"])

    def read(self, field, start, stop):
        return self.columns[field][start:stop]


def make_store(**odd) -> Store:
    """Forty like cells; the last one differs by what `odd` says."""
    rng = np.random.default_rng(0)
    count = 40
    side, centre = rng.normal(100, 4, count), rng.normal(150, 3, (count, 2))
    crop = np.full((count, 128, 128, 3), 220, np.uint8)
    crop[:, 40:90, 40:90] = (90 + rng.integers(-5, 6, count))[:, None, None, None]
    score = rng.uniform(0.97, 1.0, count).astype(np.float32)
    side[-1], score[-1] = odd.get("side", side[-1]), odd.get("score", score[-1])
    centre[-1] = odd.get("centre", centre[-1])
    if odd.get("pale"):
        crop[-1, 40:90, 40:90] = 200
    box = np.concatenate([centre - side[:, None] / 2, centre + side[:, None] / 2], axis=1).astype(np.float32)
    return Store(box=box, score=score, crop=crop, image_shape=np.full((count, 2), 300, np.int32))


@pytest.mark.parametrize("odd", [{"side": 30}, {"side": 250}, {"score": 0.5}, {"centre": (250, 60)}, {"pale": True}])
def test_doubtful_rows_begin_with_the_odd_one(odd):
    store = make_store(**odd)
    assert doubtful_rows(store, 3)[0] == 39
    assert doubts(store)[39] > 5


def test_doubts_are_small_among_like_cells():
    assert np.median(doubts(make_store())) < 2
    assert len(doubtful_rows(make_store(), 24)) == 24


def test_doubtful_rows_of_nothing_are_none():
    empty = Store(**{name: np.zeros((0, 4)) for name in ("box", "score", "crop", "image_shape")})
    assert len(doubtful_rows(empty, 5)) == 0


def test_doubts_of_one_cell_and_of_equal_cells_are_finite():
    store = make_store()
    single = Store(**{name: values[:1] for name, values in store.columns.items()})
    equal = Store(**{name: np.repeat(values[:1], 5, axis=0) for name, values in store.columns.items()})
    assert np.isfinite(doubts(single)).all() and np.isfinite(doubts(equal)).all()
