"""Learn two of COCO's classes, one of which stands for a third too, with anchors of one's own; evaluate and save.

Files are as in coco.py.

    python3 own_anchors.py train --dataset=/path/to/data --weights=imagenet
"""

import os

import keras
import numpy as np
from coco import CellsDataset, build_coco_results, evaluate_coco
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from small_detector import SmallConfig, load_model, parse_arguments

from mrcnn import model as modellib
from mrcnn import utils

# Category 9 counts as 3, and no class is made for it.
CLASS_MAP = {"coco.9": 1}
CATEGORIES = {3: "red", 7: "white"}


class AnchorConfig(SmallConfig):
    NAME = "anchors"
    NUM_CLASSES = 1 + len(CATEGORIES)
    RPN_ANCHOR_RATIOS = [0.5, 1, 1.5, 2]
    RPN_ANCHOR_SCALES = (12, 24, 32, 48, 64)
    RPN_ANCHOR_STRIDE = 2  # an anchor in every second place
    DETECTION_MIN_CONFIDENCE = 0


class InferenceConfig(AnchorConfig):
    IMAGES_PER_GPU = 1


class MappedDataset(CellsDataset):
    def load_coco(self, dataset_dir, subset, year="2030"):
        coco = COCO(f"{dataset_dir}/annotations/instances_{subset}{year}.json")
        for category, name in CATEGORIES.items():
            self.add_class("coco", category, name)
        for i, image in coco.imgs.items():
            path = os.path.join(f"{dataset_dir}/{subset}{year}", image["file_name"])
            size = {"width": image["width"], "height": image["height"]}
            self.add_image("coco", i, path, **size, annotations=coco.loadAnns(coco.getAnnIds(imgIds=[i])))
        self.prepare(class_map=CLASS_MAP)
        return coco


def evaluate_truth(dataset, coco):
    """COCO's figures where the marked instances are what was found: AP is 1, or data and evaluation disagree."""
    results = []
    for image_id in dataset.image_ids:
        masks, class_ids = dataset.load_mask(image_id)
        masks, class_ids = masks[..., class_ids > 0], class_ids[class_ids > 0]  # without crowds
        found = utils.extract_bboxes(masks), class_ids, np.ones(len(class_ids)), masks
        results += build_coco_results(dataset, dataset.image_info[image_id]["id"], *found)
    evaluation = COCOeval(coco, coco.loadRes(results), "segm")
    evaluation.params.catIds = list(CATEGORIES)
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return evaluation


if __name__ == "__main__":
    args = parse_arguments()
    dataset_train, dataset_val = MappedDataset(), MappedDataset()
    dataset_train.load_coco(args.dataset, "train")
    coco = dataset_val.load_coco(args.dataset, "val")
    truth = evaluate_truth(dataset_val, coco)

    model = load_model("training", AnchorConfig(), args.weights)
    rate = model.config.LEARNING_RATE
    model.train(dataset_train, dataset_val, learning_rate=rate, epochs=args.epochs, layers="heads")

    model = load_model("inference", InferenceConfig(), "last")
    evaluation, results = evaluate_coco(model, dataset_val, coco, args.type)

    # The whole network as one file, for code that knows nothing of MaskRCNN
    model.keras_model.save("cells.keras")
    opened = keras.saving.load_model("cells.keras")
    image = dataset_val.load_image(0)
    molded_images, image_metas, windows = model.mold_inputs([image])
    anchors = model.get_anchors(molded_images.shape[1:])[np.newaxis]
    inputs = [molded_images, image_metas, anchors]
    outputs = [each.predict(inputs, verbose=0) for each in (model.keras_model, opened)]
    detections, mrcnn_mask = outputs[1][0][0], outputs[1][3][0]
    shapes = image.shape, molded_images[0].shape
    rois, class_ids, scores, masks = model.unmold_detections(detections, mrcnn_mask, *shapes, windows[0])
    modellib.log("rois", rois)
