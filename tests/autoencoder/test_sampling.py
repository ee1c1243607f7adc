from itertools import islice

import numpy as np
import pytest

from autoencoder.batches import RowOrder, TypeOrder, batch_shares, rows_by_type
from mrcnn.files.errors import InputError


@pytest.mark.parametrize(
    ("counts", "size", "balance", "expected"),
    [
        ([100, 100, 100], 1500, "none", (500, 500, 500)),
        ([300, 100], 8, "none", (6, 2)),
        ([1000, 10, 10], 12, "none", (8, 2, 2)),
        ([1000, 10, 10], 12, "centre", (4, 4, 4)),
        ([1000, 10, 10], 12, "type", (4, 4, 4)),
        ([5, 5, 5], 7, "none", (3, 2, 2)),
        ([5, 5, 5], 4, "none", (2, 1, 1)),
        ([7], 4, "none", (4,)),
    ],
)
def test_batch_shares(counts, size, balance, expected):
    assert batch_shares(counts, size, balance) == expected


def test_batch_shares_keep_two_of_every_centre_and_the_sum():
    random = np.random.default_rng(0)
    for _ in range(200):
        counts = random.integers(1, 10_000, random.integers(1, 7)).tolist()
        size = int(random.integers(2 * len(counts), 200))
        shares = batch_shares(counts, size)
        assert sum(shares) == size and min(shares) >= 2


def test_batch_shares_refuse_a_batch_smaller_than_the_centres():
    with pytest.raises(InputError, match="global_batch_size is 2 for 3 centres"):
        batch_shares([5, 5, 5], 2)


@pytest.mark.parametrize(("counts", "balance"), [([], "none"), ([3, 0], "none"), ([3, 4], "cell")])
def test_batch_shares_refuse_what_is_no_fault_of_the_user(counts, balance):
    with pytest.raises(ValueError, match="cell|balance"):
        batch_shares(counts, 8, balance)


def take(order, position, number):
    """The rows from a position on."""
    rows = (int(row) for window in order.windows(position) for row in window)
    return list(islice(rows, number))


@pytest.mark.parametrize("num_rows", [1, 7, 64, 101])
def test_row_order_gives_every_row_once_in_each_pass(num_rows):
    passes = np.reshape(take(RowOrder(num_rows, (3,), block_rows=4, window_rows=16), 0, 3 * num_rows), (3, num_rows))
    np.testing.assert_array_equal(np.sort(passes, axis=1), np.tile(np.arange(num_rows), (3, 1)))
    if num_rows > 7:
        assert not np.array_equal(passes[0], passes[1]) and not np.array_equal(passes[0], np.arange(num_rows))


@pytest.mark.parametrize("position", [1, 15, 16, 17, 101, 150, 1000])
def test_row_order_can_start_anywhere(position):
    order = RowOrder(101, (3, 1), block_rows=4, window_rows=16)
    assert take(order, position, 60) == take(order, 0, position + 60)[position:]


def test_row_order_reads_blocks_of_neighbours():
    for window in islice(RowOrder(96, (5,), block_rows=8, window_rows=32).windows(), 12):
        blocks, counts = np.unique(window // 8, return_counts=True)
        assert len(blocks) == 4 and np.all(counts == 8)


def test_row_order_follows_the_seed():
    assert take(RowOrder(50, (1, 0)), 0, 50) == take(RowOrder(50, (1, 0)), 0, 50)
    assert take(RowOrder(50, (1, 0)), 0, 50) != take(RowOrder(50, (1, 1)), 0, 50)


@pytest.fixture
def groups():
    """Rows of three types, of very different number."""
    rows = np.random.default_rng(0).permutation(100)
    return [np.sort(rows[:3]), np.sort(rows[3:20]), np.sort(rows[20:])]


def type_order(groups, seed=(7,), window_rows=24):
    return TypeOrder(groups, seed, block_rows=4, window_rows=window_rows)


def test_type_order_gives_every_type_once_in_each_round(groups):
    type_of = {int(row): number for number, rows in enumerate(groups) for row in rows}
    types = np.array([type_of[row] for row in take(type_order(groups), 0, 900)]).reshape(-1, 3)
    np.testing.assert_array_equal(np.sort(types, axis=1), np.tile([0, 1, 2], (300, 1)))
    assert len(np.unique(types, axis=0)) == 6  # in every order


@pytest.mark.parametrize("number", [0, 1, 2])
def test_type_order_gives_every_row_of_a_type_once_in_each_pass_over_it(groups, number):
    size = len(groups[number])
    of_type = [row for row in take(type_order(groups), 0, 3 * 2 * size) if row in groups[number]]
    passes = np.sort(np.reshape(of_type, (2, size)), axis=1)
    np.testing.assert_array_equal(passes, np.tile(groups[number], (2, 1)))


@pytest.mark.parametrize("position", [1, 2, 3, 23, 24, 25, 100, 1001])
def test_type_order_can_start_anywhere(groups, position):
    order = type_order(groups)
    assert take(order, position, 80) == take(order, 0, position + 80)[position:]


def test_type_order_follows_the_seed(groups):
    assert take(type_order(groups), 0, 60) == take(type_order(groups), 0, 60)
    assert take(type_order(groups), 0, 60) != take(type_order(groups, seed=(8,)), 0, 60)


@pytest.mark.parametrize(("num_types", "window_rows"), [(1, 16), (3, 24), (50, 16)])
def test_type_order_holds_no_more_rows_than_a_window(num_types, window_rows):
    groups = np.split(np.arange(num_types * 10), num_types)
    order = TypeOrder(groups, (1,), block_rows=4, window_rows=window_rows)
    assert all(0 < len(window) <= window_rows for window in islice(order.windows(), 100))


class Labelled:
    """What `rows_by_type` needs of a store."""

    path = "north.h5"

    def __init__(self, cell_types, labels):
        self.columns = {"cell_type": np.array(cell_types), "label": np.array(labels)}

    def __len__(self):
        return len(self.columns["label"])

    def read(self, field, start, stop):
        return self.columns[field][start:stop]


@pytest.mark.parametrize(
    ("cell_types", "labels", "expected"),
    [
        (["b", "a", "b"], ["x", "y", "z"], {"a": [1], "b": [0, 2]}),
        (["b", "", "b"], ["x", "y", "z"], {"": [1], "b": [0, 2]}),
        (["", "", ""], ["x", "y", "x"], {"x": [0, 2], "y": [1]}),
        (["", "", ""], ["x", "", "x"], {"": [1], "x": [0, 2]}),
    ],
)
def test_rows_by_type_takes_labels_where_there_are_no_types(cell_types, labels, expected):
    found = rows_by_type(Labelled(cell_types, labels))
    assert {name: rows.tolist() for name, rows in found.items()} == expected
    assert list(found) == sorted(found)


def test_rows_by_type_refuses_a_store_without_labels():
    with pytest.raises(InputError, match="north.h5: no cell has a type or label.*choose balance 'none'"):
        rows_by_type(Labelled(["", ""], ["", ""]))
