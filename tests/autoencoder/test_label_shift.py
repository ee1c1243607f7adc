import pytest

from autoencoder.label_shift import UNLABELLED, count_types, format_counts, shift_warnings, type_distance


def test_count_types_by_centre(stores, typed_store):
    assert count_types({name: stores[name] for name in ("anna", "bert")}) == {
        "anna": {"type0": 6, "type1": 6},
        "bert": {"type0": 5, "type1": 4},
    }
    found = count_types({"dora": typed_store("dora", ["zeta", "", "alpha", "", ""])})["dora"]
    assert list(found.items()) == [("alpha", 1), ("zeta", 1), (UNLABELLED, 3)]


def test_format_counts_aligns_types_and_centres():
    counts = {"north": {"lymphocyte": 1200, UNLABELLED: 3}, "bay": {"basophil": 7, "lymphocyte": 80}}
    expected = "type north bay, basophil 0 7, lymphocyte 1200 80, unlabelled 3 0, all 1203 87"
    assert ", ".join(" ".join(line.split()) for line in format_counts(counts).splitlines()) == expected


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ({"a": 10, "b": 30}, {"a": 1, "b": 3}, 0.0),
        ({"a": 3}, {"b": 5}, 1.0),
        ({"a": 1, "b": 1, UNLABELLED: 50}, {"a": 9, "b": 1}, 0.4),
        ({"a": 1}, {UNLABELLED: 5}, None),
    ],
)
def test_type_distance(first, second, expected):
    for distance in (type_distance(first, second), type_distance(second, first)):
        assert distance == (expected if expected is None else pytest.approx(expected))


def test_shift_warnings_name_the_centres_that_differ():
    counts = {"near": {"a": 5, "b": 4}, "north": {"a": 1, "b": 1}, "far": {"a": 9, "b": 1}, "none": {UNLABELLED: 100}}
    (warning,) = shift_warnings(counts, "north")
    assert warning.startswith("north and far differ") and "0.40" in warning and "\n" not in warning
    assert [line.split(" differ")[0] for line in shift_warnings(counts, "far")] == ["far and near", "far and north"]
