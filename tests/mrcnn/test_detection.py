import logging

import numpy as np
import pytest

from mrcnn.config import make_config
from mrcnn.detection import detect_each, detection_limit, warn_of_full, with_detections
from mrcnn.files.errors import InputError


@pytest.mark.parametrize(
    ("number", "expected"), [(10, (10, 50, 1000)), (400, (400, 400, 1000)), (1500, (1500, 1500, 1500))]
)
def test_with_detections_raises_what_would_stand_in_the_way(number, expected):
    config = make_config({"DETECTION_MAX_INSTANCES": 60, "POST_NMS_ROIS_INFERENCE": 50, "PRE_NMS_LIMIT": 1000})
    before = config.to_dict()
    changed = with_detections(config, number)
    names = ("DETECTION_MAX_INSTANCES", "POST_NMS_ROIS_INFERENCE", "PRE_NMS_LIMIT")
    assert tuple(getattr(changed, name) for name in names) == expected
    assert detection_limit(changed) == number and detection_limit(config) == 50
    assert config.to_dict() == before
    assert {**changed.to_dict(), **{name: before[name] for name in names}} == before
    with pytest.raises(InputError, match="at least 1; got 0"):
        with_detections(config, 0)


def test_warn_of_full_names_a_few(caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("mrcnn"), "propagate", True)
    config = make_config({"DETECTION_MAX_INSTANCES": 20})
    warn_of_full([], config)
    assert not caplog.text
    warn_of_full([f"{i}.png" for i in range(5)], config)
    assert "5 images have 20 cells" in caplog.text and "0.png, 1.png, 2.png and 2 more" in caplog.text


def test_detect_each_goes_on_where_an_image_is_not_taken():
    class Choosy:
        calls = 0

        def detect(self, images, **options):
            self.calls += 1
            assert options == {"masks": False}
            if any(image.shape[0] % 2 for image in images):
                raise InputError("odd")
            return [{"scores": image[0]} for image in images]

    damaged, choosy = InputError("c.png: cut off"), Choosy()
    images = [np.zeros((2, 1)), np.zeros((3, 1)), damaged, np.ones((4, 1))]
    first, second, third, fourth = detect_each(choosy, images, ["a", "b", "c", "d"], masks=False)
    assert third is damaged and str(second) == "b: odd" and first["scores"] == [0] and fourth["scores"] == [1]
    assert choosy.calls == 4 and detect_each(choosy, [damaged], ["c"], masks=False) == [damaged]
    assert choosy.calls == 4 and detect_each(choosy, images[::3], "ad", masks=False)[1]["scores"] == [1]
    assert choosy.calls == 5
