"""The commands and the code of README.md and of the pages in docs/: each runs here or is listed below with a reason.

A page gets a folder of its own with what a reader has who did the steps before it: `smears/` with the three drawn
centres, `detector/`, `autoencoder/`, `features/<centre>.h5`, `embedding.h5ad`, and `runs/demo/`. What a command is
about to make there itself is taken away first.
"""

import glob
import json
import re
import shlex
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

from aecfe.cli import build_parser, main

ROOT = Path(__file__).parents[2]
CATEGORIES = ("neutrophil", "eosinophil", "monocyte")
# What the commands get added here, so that all of them together take a minute; no result on the pages is of this size.
SMALLER = {
    "synth": "--images 20 --size 64",
    "detector train": """
        --set settings.BACKBONE=resnet50 --set settings.FPN_CLASSIF_FC_LAYERS_SIZE=64
        --set settings.IMAGE_MIN_DIM=64 --set settings.IMAGE_MAX_DIM=64
        --set settings.RPN_ANCHOR_SCALES=[8,16,24,32,48] --set settings.TRAIN_ROIS_PER_IMAGE=8
        --set settings.PRE_NMS_LIMIT=200 --set settings.POST_NMS_ROIS_TRAINING=40
        --set settings.POST_NMS_ROIS_INFERENCE=20 --set settings.MAX_GT_INSTANCES=4
        --set settings.DETECTION_MAX_INSTANCES=4 --set settings.IMAGES_PER_GPU=2
        --set settings.STEPS_PER_EPOCH=2 --set settings.VALIDATION_STEPS=0 --set epochs=1
        --set settings.DETECTION_MIN_CONFIDENCE=0""",  # having learned nothing it is sure of nothing
    "train": "--steps 2 --batch-size 6 --image-size 32 --set log_every=1",
    "evaluate": "--runs 1",
}
PREPARATION = """
    aecfe synth smears
    aecfe detector train smears/north --instances -o detector
    aecfe extract smears/north --detector detector -o features/north.h5
    aecfe extract smears/river --detector detector -o features/river.h5
    aecfe extract smears/harbour --detector detector -o features/harbour.h5
    aecfe train features/north.h5 features/river.h5 -o autoencoder
    aecfe embed autoencoder features/north.h5 features/river.h5 -o embedding.h5ad
"""
# Commands that are not run here, though those of aecfe must still be understood: they work on the whole repository for
# minutes; install or download; need data, GPUs, machines or programs that the reader has; or tests elsewhere run them.
NOT_RUN = re.compile(
    r"make (demo|test|bench)|benchmarks/|pip install|list_physical_devices|python3 -m venv"
    r"|reproduce |/path/to|my-images/|my\.yaml|matek|--start|--gpus|TF_CONFIG|^#!|report runs/demo"
    r"|detector import|saved_model_cli|docker run|export pipeline"
)
# The same of code, found anywhere in a block.
CODE_NOT_RUN = re.compile(
    r"get_imagenet_weights|models/(pipeline|autoencoder)|find_cells\(\"smears|find_cells\(path\)|localhost|import grpc"
    r"|EarlyStopping\(patience=5",  # a script in examples/matterport/ does it at a small size
    re.MULTILINE,
)
# Pages on what a detector learns from: its training stops there once that was read and found good.
ONLY_READ = ("docs/data.md",)
# What stands in code on a page, and what takes its place here.
SMALLER_CODE = {
    "STEPS_PER_EPOCH = 100\n": "STEPS_PER_EPOCH = 2\n",
    "VALIDATION_STEPS = 5\n": "VALIDATION_STEPS = 0\n",  # which saves compiling
    "_DIM = 128\n": "_DIM = 64\n",
}


class Block(NamedTuple):
    """A fenced block of a page: where it begins, its language, the name that it is given as a file, and its text."""

    where: str
    language: str
    title: str | None
    text: str

    def lines(self) -> list[str]:
        """The lines without those that go on, and without comments."""
        lines = re.sub(r" *\\\n *", " ", self.text).splitlines()
        return [stripped for line in lines if (stripped := re.sub(r"(^|\s+)#(?!!).*", "", line))]

    def commands(self) -> list[str]:
        """What is typed, which of a file for another program is nothing but its first line."""
        return self.lines()[:1] if self.text.startswith("#!") else self.lines()

    def is_left_out(self) -> bool:
        """Whether nothing of it is run here."""
        if self.language == "python":
            return CODE_NOT_RUN.search(self.text) is not None
        return self.language != "bash" or all(map(NOT_RUN.search, self.commands()))


def page_names() -> list[str]:
    pages = [path for path in ROOT.glob("docs/**/*.md") if "api" not in path.parts]
    return ["README.md", "SECURITY.md", *sorted(path.relative_to(ROOT).as_posix() for path in pages)]


def blocks_of(page: str) -> list[Block]:
    text = (ROOT / page).read_text(encoding="utf-8")
    fences = r"^( *)```(\w*)(?: title=\"([^\"]+)\")?[^\n`]*\n(.*?)^\1```$"
    return [
        Block(f"{page}:{text.count(chr(10), 0, m.start()) + 1}", m[2], m[3], re.sub(f"(?m)^{m[1]}", "", m[4]))
        for m in re.finditer(fences, text, flags=re.MULTILINE | re.DOTALL)
    ]


def words_of(command: str) -> tuple[dict[str, str], list[str]]:
    """The variables that a command sets, and its words as a shell would expand them in the present folder."""
    words, variables = shlex.split(command), {}
    while words and re.match(r"[A-Z_]+=", words[0]):
        name, _, variables[name] = words.pop(0).partition("=")
    return variables, [path for word in words for path in sorted(glob.glob(word)) or [word]]


def aecfe_words(command: str) -> list[str] | None:
    words = words_of(command)[1]
    return words[1:] if words and words[0] in ("aecfe", ".venv/bin/aecfe") else None


def smaller(words: list[str]) -> list[str]:
    """The arguments with what makes their command small."""
    more = SMALLER.get(" ".join(words[:2])) or SMALLER.get(words[0], "")
    return [*words, *shlex.split(more)]


def run_aecfe(words: list[str]) -> None:
    assert main(smaller(words)) == 0, shlex.join(["aecfe", *words])


def make_way(words: list[str], made: set[Path]) -> None:
    """Take away what the preparation made and this command makes itself; keep what the page has made.

    A command that is one of the preparation's finds its work done, as a reader would who gives it twice.
    """

    def understood(words: list[str]) -> dict:
        arguments = vars(build_parser().parse_args(smaller(words)))
        return {name: value for name, value in arguments.items() if name != "command"}

    output = understood(words).get("output")
    if output is None or words[0] in ("run", "report"):
        return
    path = Path(output)
    prepared = [understood(shlex.split(line)[1:]) for line in PREPARATION.strip().splitlines()]
    if path not in made and path.exists() and understood(words) not in prepared:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    made.add(path)


def draw_outlines(smears: Path) -> None:
    """The masks of two centres as boxes in the formats of the tools that people draw with."""
    coco, project = {"images": [], "annotations": [], "categories": []}, {}
    coco["categories"] = [{"id": number, "name": name} for number, name in enumerate(CATEGORIES)]
    (smears / "north" / "drawn").mkdir()
    for path in sorted(smears.glob("*/masks/*")):
        mask, number = np.asarray(Image.open(path)), len(coco["images"])
        cells = [np.nonzero(mask == cell) for cell in np.unique(mask[mask > 0])]
        corners = [(int(x.min()), int(y.min()), int(x.max()) + 1, int(y.max()) + 1) for y, x in cells]
        size = {"height": mask.shape[0], "width": mask.shape[1]}
        if path.parts[-3] == "north":
            coco["images"].append({"id": number, "file_name": path.name, **size})
            for x1, y1, x2, y2 in corners:
                cell = {"id": len(coco["annotations"]), "image_id": number, "category_id": number % len(CATEGORIES)}
                coco["annotations"].append({**cell, "segmentation": [[x1, y1, x2, y1, x2, y2, x1, y2]]})
            shapes = [{"label": "WBC", "shape_type": "rectangle", "points": [c[:2], c[2:]]} for c in corners]
            labelme = {"imagePath": path.name, "imageHeight": mask.shape[0], "imageWidth": mask.shape[1]}
            drawn = smears / "north" / "drawn" / f"{path.stem}.json"
            drawn.write_text(json.dumps({**labelme, "shapes": shapes}))
        elif path.parts[-3] == "river":
            x1, y1, x2, y2 = corners[0]
            box = {"name": "rect", "x": x1, "y": y1, "width": x2 - x1, "height": y2 - y1}
            regions = [{"shape_attributes": box, "region_attributes": {}}]
            project[path.name] = {"filename": path.name, "size": 0, "regions": regions, "file_attributes": {}}
    (smears / "north" / "instances.json").write_text(json.dumps(coco))
    (smears / "river" / "via_project.json").write_text(json.dumps({"_via_img_metadata": project}))


class FirstPlane:
    """A map at once, in the place of UMAP, which takes long to start."""

    def __init__(self, **options):
        pass

    def fit_transform(self, vectors):
        return vectors[:, :2]


@pytest.fixture(scope="module", autouse=True)
def quick(small_resnet):
    """A short backbone, a map at once, and detectors that stay open from command to command, which saves compiling."""
    from experiments.cells import detector, export, features
    from mrcnn import model

    original, opened = model.load_detector, {}

    def load_detector(folder, overrides=None, max_detections=None):
        contents = [(Path(folder) / name).read_bytes() for name in (model.CONFIG_NAME, model.WEIGHTS_NAME)]
        key = (*contents, repr(overrides), max_detections)
        if key not in opened:
            opened[key] = original(folder, overrides, max_detections)
        return opened[key]

    with small_resnet(), pytest.MonkeyPatch.context() as patch:
        patch.setenv("MPLBACKEND", "agg")
        patch.setitem(sys.modules, "umap", SimpleNamespace(UMAP=FirstPlane))
        for module in (model, detector, export, features):
            patch.setattr(module, "load_detector", load_detector)
        yield


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """The folder that every page gets a copy of."""
    folder = tmp_path_factory.mktemp("prepared")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for line in PREPARATION.strip().splitlines():
            run_aecfe(shlex.split(line)[1:])
    for name in ("detector", "autoencoder", "features"):
        shutil.copytree(folder / name, folder / "runs" / "demo" / name)
    shutil.copytree(folder / "smears" / "river" / "images", folder / "my-images")
    shutil.copyfile(sorted((folder / "my-images").iterdir())[0], folder / "smear.png")
    return folder


@pytest.fixture
def reader(prepared, tmp_path, monkeypatch):
    """The present folder of somebody who reads a page."""
    shutil.copytree(prepared, tmp_path, dirs_exist_ok=True)
    for name in ("experiments", "benchmarks"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


PAGES = [(page, [block for block in blocks_of(page) if not block.is_left_out()]) for page in page_names()]


@pytest.mark.filterwarnings("ignore:FigureCanvasAgg is non-interactive")
@pytest.mark.parametrize(("page", "blocks"), [row for row in PAGES if row[1]], ids=[row[0] for row in PAGES if row[1]])
def test_page_does_what_it_says(page, blocks, reader, monkeypatch):
    if page in ONLY_READ:
        draw_outlines(reader / "smears")
        monkeypatch.setattr("experiments.cells.detector.train_detector", only_read)
    namespace, made = {"__name__": page}, set()
    for block in blocks:
        if block.title is not None:
            (reader / block.title).write_text(block.text, encoding="utf-8")
        if block.language == "python":
            code = block.text
            for shown, here in SMALLER_CODE.items():
                code = code.replace(shown, here)
            exec(compile(code, block.where, "exec"), namespace)
            continue
        for command in block.commands():
            if not NOT_RUN.search(command):
                run_command(command, made, block.where, keep=page in ONLY_READ)


def only_read(images, output, *, settings, **others) -> None:
    """Look at the first image and its cells instead of training."""
    for masked in images:
        dataset = masked.dataset()
        assert len(dataset.image_ids) > 0 and dataset.load_mask(0)[0].any()


def run_command(command: str, made: set[Path], where: str, *, keep: bool) -> None:
    words = aecfe_words(command)
    assert words is not None, f"{where}: `{command}` is no command of aecfe; add it to NOT_RUN if it is not to run here"
    if not keep:
        make_way(words, made)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in words_of(command)[0].items():
            patch.setenv(name, value)
            if name == "PYTHONPATH":
                patch.syspath_prepend(value)
        run_aecfe(words)


@pytest.mark.parametrize("page", page_names())
def test_every_block_says_what_it_is_and_commands_are_understood(page):
    for block in blocks_of(page):
        assert block.language, block.where
        # Scripts and programs of several lines hold commands too.
        for line in block.lines() if block.language == "bash" else []:
            words = aecfe_words(line) if "aecfe " in line else None
            try:
                build_parser().parse_args(words) if words else None
            except SystemExit:
                pytest.fail(f"{block.where}: `{line}` is not understood")
