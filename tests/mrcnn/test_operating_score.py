import numpy as np
import pytest

from mrcnn.evaluation import choose_operating_score, measure_operating_score
from mrcnn.files.errors import InputError


def f1_at(score, scores, correct, num_cells) -> float:
    kept = np.asarray(scores) >= score
    return 2 * np.asarray(correct)[kept].sum() / (kept.sum() + num_cells)


@pytest.mark.parametrize(
    ("scores", "correct", "num_cells", "expected"),
    [
        # Wrong ones end at 0.6, right ones begin at 0.9.
        ([0.99, 0.9, 0.6, 0.3], [True, True, False, False], 2, 0.75),
        # In any order.
        ([0.3, 0.9, 0.6, 0.99], [False, True, False, True], 2, 0.75),
        # Nothing is wrong: from the lowest score that there could be on.
        ([0.9, 0.8], [True, True], 2, 0.42),
        # One wrong detection costs less than the right one below it brings.
        ([0.9, 0.8, 0.7, 0.2], [True, False, True, False], 2, 0.45),
        # Two equal scores count together.
        ([0.9, 0.5, 0.5], [True, True, False], 2, 0.27),
    ],
)
def test_choose_operating_score_known_answers(scores, correct, num_cells, expected):
    chosen = choose_operating_score(np.array(scores), np.array(correct), num_cells, lowest=0.04)
    assert chosen == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(20))
def test_choose_operating_score_has_the_highest_f1_of_all(seed):
    rng = np.random.default_rng(seed)
    scores, correct = rng.uniform(0.1, 1, 30).round(2), rng.random(30) < 0.6
    chosen = choose_operating_score(scores, correct, 25, lowest=0.05)
    best = max(f1_at(score, scores, correct, 25) for score in np.linspace(0, 1, 1001))
    assert f1_at(chosen, scores, correct, 25) == pytest.approx(best)


@pytest.mark.parametrize("scores", [[], [0.9, 0.8]])
def test_choose_operating_score_without_a_correct_detection_is_none(scores):
    assert choose_operating_score(np.array(scores), np.zeros(len(scores), bool), 3) is None


def test_measure_operating_score_matches_each_cell_once(cell_dataset):
    class Finder:
        """Finds every cell twice, the second time with a lower score, and a place where nothing is."""

        class config:
            DETECTION_MIN_CONFIDENCE = 0.05

        def __init__(self, dataset):
            self.boxes = {dataset.load_image(i).tobytes(): dataset.load_mask(i)[0] for i in dataset.image_ids}

        def detect(self, images, masks):
            from mrcnn.data.masks import extract_bboxes

            results = []
            for image in images:
                box = extract_bboxes(self.boxes[image.tobytes()])[0]
                rois = np.array([box, box, [0, 0, 2, 2]])
                results.append({"rois": rois, "scores": np.array([0.95, 0.75, 0.4])})
            return results

    dataset = cell_dataset(3)
    assert measure_operating_score(Finder(dataset), [dataset], batch_size=2) == pytest.approx(0.85)


def test_measure_operating_score_names_an_image_that_is_not_taken(cell_dataset):
    class Refuser:
        class config:
            DETECTION_MIN_CONFIDENCE = 0.05

        def detect(self, images, masks):
            raise InputError("image 0 is too long for its width")

    with pytest.raises(InputError, match=r"0\.png: image 0 is too long"):
        measure_operating_score(Refuser(), [cell_dataset(2)])
