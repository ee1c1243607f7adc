"""Train and evaluate on data in COCO's format, crowds included.

DATASET/annotations/instances_train2030.json    DATASET/train2030/*.png
DATASET/annotations/instances_val2030.json      DATASET/val2030/*.png

python3 coco.py train --dataset=/path/to/data --weights=imagenet
python3 coco.py evaluate --dataset=/path/to/data --weights=last
"""

import os

import imgaug
import numpy as np
from pycocotools import mask as maskUtils
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from small_detector import SmallConfig, load_model, parse_arguments

from mrcnn import utils


class CellsConfig(SmallConfig):
    NAME = "cells"
    NUM_CLASSES = 1 + 3


class InferenceConfig(CellsConfig):
    IMAGES_PER_GPU = 1
    DETECTION_MIN_CONFIDENCE = 0


class CellsDataset(utils.Dataset):
    def load_coco(self, dataset_dir, subset, year="2030"):
        """Register the images of a subset and return the COCO object."""
        coco = COCO(f"{dataset_dir}/annotations/instances_{subset}{year}.json")
        class_ids = sorted(coco.getCatIds())
        for i in class_ids:
            self.add_class("coco", i, coco.loadCats(i)[0]["name"])
        for i, image in coco.imgs.items():
            self.add_image(
                "coco",
                image_id=i,
                path=os.path.join(f"{dataset_dir}/{subset}{year}", image["file_name"]),
                width=image["width"],
                height=image["height"],
                annotations=coco.loadAnns(coco.getAnnIds(imgIds=[i], catIds=class_ids, iscrowd=None)),
            )
        return coco

    def load_mask(self, image_id):
        info = self.image_info[image_id]
        if info["source"] != "coco":
            return super().load_mask(image_id)
        instance_masks, class_ids = [], []
        for annotation in info["annotations"]:
            class_id = self.map_source_class_id(f"coco.{annotation['category_id']}")
            m = self.annToMask(annotation, info["height"], info["width"])
            if class_id and m.max() > 0:  # some are smaller than a pixel
                instance_masks.append(m)
                # A negative class id marks a crowd
                class_ids.append(-class_id if annotation["iscrowd"] else class_id)
        if class_ids:
            return np.stack(instance_masks, axis=2).astype(bool), np.array(class_ids, dtype=np.int32)
        # An empty mask
        return super().load_mask(image_id)

    def annToMask(self, ann, height, width):
        segm = ann["segmentation"]
        if isinstance(segm, list):
            # Several polygons may make one object
            segm = maskUtils.merge(maskUtils.frPyObjects(segm, height, width))
        elif isinstance(segm["counts"], list):
            segm = maskUtils.frPyObjects(segm, height, width)
        return maskUtils.decode(segm)


def build_coco_results(dataset, image_id, rois, class_ids, scores, masks):
    """Arrange the results of an image as COCO's evaluation takes them."""
    return [
        {
            "image_id": image_id,
            "category_id": dataset.get_source_class_id(class_ids[i], "coco"),
            "bbox": [rois[i][1], rois[i][0], rois[i][3] - rois[i][1], rois[i][2] - rois[i][0]],
            "score": scores[i],
            # uint8, since COCO's tools know no bool
            "segmentation": maskUtils.encode(np.asfortranarray(masks[:, :, i].astype(np.uint8))),
        }
        for i in range(rois.shape[0])
    ]


def evaluate_coco(model, dataset, coco, eval_type):
    """Detect on all images and print COCO's figures; eval_type is "bbox" or "segm"."""
    results = []
    for image_id in dataset.image_ids:
        r = model.detect([dataset.load_image(image_id)], verbose=0)[0]
        coco_id = dataset.image_info[image_id]["id"]
        results += build_coco_results(dataset, coco_id, r["rois"], r["class_ids"], r["scores"], r["masks"])
    evaluation = COCOeval(coco, coco.loadRes(results), eval_type)
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return evaluation, results


if __name__ == "__main__":
    args = parse_arguments()
    dataset_val = CellsDataset()
    coco = dataset_val.load_coco(args.dataset, "val")
    dataset_val.prepare()
    if args.command == "train":
        model = load_model("training", CellsConfig(), args.weights)
        dataset_train = CellsDataset()
        dataset_train.load_coco(args.dataset, "train")
        dataset_train.prepare()
        # Half of the images are flipped
        augmentation = imgaug.augmenters.Fliplr(0.5)
        rate = model.config.LEARNING_RATE
        for epochs, layers in ((1, "heads"), (2, "4+")):
            model.train(
                dataset_train, dataset_val, learning_rate=rate, epochs=epochs, layers=layers, augmentation=augmentation
            )
    else:
        model = load_model("inference", InferenceConfig(), args.weights)
        evaluation, results = evaluate_coco(model, dataset_val, coco, args.type)
