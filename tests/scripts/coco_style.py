"""Train and evaluate on data in COCO's format, crowds included.

    DATASET/annotations/instances_train2030.json    DATASET/train2030/*.png
    DATASET/annotations/instances_val2030.json      DATASET/val2030/*.png

Run it from a folder two levels below the project:

    python3 coco_style.py train --dataset=/path/to/data --model=imagenet
    python3 coco_style.py evaluate --dataset=/path/to/data --model=last
"""

import os
import sys
import time

import imgaug
import numpy as np
from pycocotools import mask as maskUtils
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

ROOT_DIR = os.path.abspath("../../")

sys.path.append(ROOT_DIR)
from mrcnn import model as modellib  # noqa: E402
from mrcnn import utils  # noqa: E402
from mrcnn.config import Config  # noqa: E402

COCO_MODEL_PATH = os.path.join(ROOT_DIR, "mask_rcnn_coco.h5")
DEFAULT_LOGS_DIR = os.path.join(ROOT_DIR, "logs")
DEFAULT_DATASET_YEAR = "2030"


class CellsConfig(Config):
    NAME = "cells"
    IMAGES_PER_GPU = 2
    NUM_CLASSES = 1 + 3
    BACKBONE = "resnet50"
    STEPS_PER_EPOCH = 2
    VALIDATION_STEPS = 1
    IMAGE_MIN_DIM = 64
    IMAGE_MAX_DIM = 64
    RPN_ANCHOR_SCALES = (8, 16, 32, 48, 64)
    TRAIN_ROIS_PER_IMAGE = 8
    POST_NMS_ROIS_TRAINING = 40
    POST_NMS_ROIS_INFERENCE = 30
    DETECTION_MAX_INSTANCES = 8
    MAX_GT_INSTANCES = 6


class CellsDataset(utils.Dataset):
    def load_coco(
        self, dataset_dir, subset, year=DEFAULT_DATASET_YEAR, class_ids=None, class_map=None, return_coco=False
    ):
        """Register the images of a subset.

        class_ids: COCO's ids of the classes to load; all if None
        return_coco: return the COCO object
        """
        coco = COCO(f"{dataset_dir}/annotations/instances_{subset}{year}.json")
        image_dir = f"{dataset_dir}/{subset}{year}"

        if not class_ids:
            class_ids = sorted(coco.getCatIds())

        if len(class_ids) < len(coco.getCatIds()):
            image_ids = []
            for class_id in class_ids:
                image_ids.extend(list(coco.getImgIds(catIds=[class_id])))
            image_ids = list(set(image_ids))
        else:
            image_ids = list(coco.imgs.keys())

        for i in class_ids:
            self.add_class("coco", i, coco.loadCats(i)[0]["name"])

        for i in image_ids:
            self.add_image(
                "coco",
                image_id=i,
                path=os.path.join(image_dir, coco.imgs[i]["file_name"]),
                width=coco.imgs[i]["width"],
                height=coco.imgs[i]["height"],
                annotations=coco.loadAnns(coco.getAnnIds(imgIds=[i], catIds=class_ids, iscrowd=None)),
            )
        if return_coco:
            return coco

    def load_mask(self, image_id):
        image_info = self.image_info[image_id]
        if image_info["source"] != "coco":
            return super().load_mask(image_id)

        instance_masks = []
        class_ids = []
        for annotation in self.image_info[image_id]["annotations"]:
            class_id = self.map_source_class_id(f"coco.{annotation['category_id']}")
            if class_id:
                m = self.annToMask(annotation, image_info["height"], image_info["width"])
                # Some are smaller than a pixel
                if m.max() < 1:
                    continue
                if annotation["iscrowd"]:
                    # A negative class id marks a crowd
                    class_id *= -1
                    if m.shape[0] != image_info["height"] or m.shape[1] != image_info["width"]:
                        m = np.ones([image_info["height"], image_info["width"]], dtype=bool)
                instance_masks.append(m)
                class_ids.append(class_id)

        if class_ids:
            mask = np.stack(instance_masks, axis=2).astype(bool)
            class_ids = np.array(class_ids, dtype=np.int32)
            return mask, class_ids
        # An empty mask
        return super().load_mask(image_id)

    def image_reference(self, image_id):
        info = self.image_info[image_id]
        if info["source"] == "coco":
            return f"https://example.org/#explore?id={info['id']}"
        return super().image_reference(image_id)

    def annToRLE(self, ann, height, width):
        """Bring an annotation to run lengths, whatever its form."""
        segm = ann["segmentation"]
        if isinstance(segm, list):
            # Several polygons may make one object
            return maskUtils.merge(maskUtils.frPyObjects(segm, height, width))
        if isinstance(segm["counts"], list):
            return maskUtils.frPyObjects(segm, height, width)
        return segm

    def annToMask(self, ann, height, width):
        return maskUtils.decode(self.annToRLE(ann, height, width))


def build_coco_results(dataset, image_ids, rois, class_ids, scores, masks):
    """Arrange results as COCO's evaluation takes them."""
    if rois is None:
        return []
    results = []
    for image_id in image_ids:
        for i in range(rois.shape[0]):
            class_id = class_ids[i]
            score = scores[i]
            bbox = np.around(rois[i], 1)
            mask = masks[:, :, i]
            results.append(
                {
                    "image_id": image_id,
                    "category_id": dataset.get_source_class_id(class_id, "coco"),
                    "bbox": [bbox[1], bbox[0], bbox[3] - bbox[1], bbox[2] - bbox[0]],
                    "score": score,
                    "segmentation": maskUtils.encode(np.asfortranarray(mask)),
                }
            )
    return results


def evaluate_coco(model, dataset, coco, eval_type="bbox", limit=0, image_ids=None):
    """Detect on `limit` images (0: all) and print COCO's figures; eval_type is "bbox" or "segm"."""
    image_ids = image_ids or dataset.image_ids
    if limit:
        image_ids = image_ids[:limit]
    coco_image_ids = [dataset.image_info[id]["id"] for id in image_ids]

    t_prediction = 0
    t_start = time.time()
    results = []
    for i, image_id in enumerate(image_ids):
        image = dataset.load_image(image_id)
        t = time.time()
        r = model.detect([image], verbose=0)[0]
        t_prediction += time.time() - t
        # uint8, since COCO's tools know no bool
        image_results = build_coco_results(
            dataset, coco_image_ids[i : i + 1], r["rois"], r["class_ids"], r["scores"], r["masks"].astype(np.uint8)
        )
        results.extend(image_results)

    coco_results = coco.loadRes(results)
    cocoEval = COCOeval(coco, coco_results, eval_type)
    cocoEval.params.imgIds = coco_image_ids
    cocoEval.evaluate()
    cocoEval.accumulate()
    cocoEval.summarize()

    print(f"Prediction time: {t_prediction}. Average {t_prediction / len(image_ids)}/image")
    print("Total time: ", time.time() - t_start)
    return cocoEval, results


if __name__ == "__main__":
    import argparse

    parser = argparse.ArgumentParser(description="Train Mask R-CNN on data in COCO's format.")
    parser.add_argument("command", metavar="<command>", help="'train' or 'evaluate'")
    parser.add_argument("--dataset", required=True, metavar="/path/to/data/", help="Directory of the data set")
    parser.add_argument("--year", default=DEFAULT_DATASET_YEAR, metavar="<year>", help="Year of the data set")
    parser.add_argument("--model", required=True, metavar="/path/to/weights.h5", help="or 'coco', 'last', 'imagenet'")
    parser.add_argument("--logs", default=DEFAULT_LOGS_DIR, metavar="/path/to/logs/", help="default: logs/")
    parser.add_argument("--limit", default=500, type=int, metavar="<image count>", help="Images to evaluate")
    parser.add_argument("--type", default="segm", help="What is evaluated: bbox or segm")
    args = parser.parse_args()
    print("Command: ", args.command)
    print("Model: ", args.model)
    print("Dataset: ", args.dataset)
    print("Logs: ", args.logs)

    if args.command == "train":
        config = CellsConfig()
    else:

        class InferenceConfig(CellsConfig):
            GPU_COUNT = 1
            IMAGES_PER_GPU = 1
            DETECTION_MIN_CONFIDENCE = 0

        config = InferenceConfig()
    config.display()

    if args.command == "train":
        model = modellib.MaskRCNN(mode="training", config=config, model_dir=args.logs)
    else:
        model = modellib.MaskRCNN(mode="inference", config=config, model_dir=args.logs)

    if args.model.lower() == "coco":
        model_path = COCO_MODEL_PATH
    elif args.model.lower() == "last":
        model_path = model.find_last()
    elif args.model.lower() == "imagenet":
        model_path = model.get_imagenet_weights()
    else:
        model_path = args.model

    print("Loading weights ", model_path)
    model.load_weights(model_path, by_name=True)

    if args.command == "train":
        dataset_train = CellsDataset()
        dataset_train.load_coco(args.dataset, "train", year=args.year)
        dataset_train.prepare()

        dataset_val = CellsDataset()
        dataset_val.load_coco(args.dataset, "val", year=args.year)
        dataset_val.prepare()

        # Half of the images are flipped
        augmentation = imgaug.augmenters.Fliplr(0.5)

        print("Training network heads")
        model.train(
            dataset_train,
            dataset_val,
            learning_rate=config.LEARNING_RATE,
            epochs=1,
            layers="heads",
            augmentation=augmentation,
        )

        print("Fine tune Resnet stage 4 and up")
        model.train(
            dataset_train,
            dataset_val,
            learning_rate=config.LEARNING_RATE,
            epochs=2,
            layers="4+",
            augmentation=augmentation,
        )

    elif args.command == "evaluate":
        dataset_val = CellsDataset()
        coco = dataset_val.load_coco(args.dataset, "val", year=args.year, return_coco=True)
        dataset_val.prepare()
        print(f"Running COCO evaluation on {args.limit} images.")
        evaluation, results = evaluate_coco(model, dataset_val, coco, args.type, limit=int(args.limit))
    else:
        print(f"'{args.command}' is not recognized. Use 'train' or 'evaluate'")
