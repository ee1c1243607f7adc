"""The command `aecfe qc`: a page on which a person checks feature files by eye."""

import argparse
from pathlib import Path

from aecfe.commands.options import add, add_seed, amount, chosen, fraction, new_command, positive
from mrcnn.files.errors import InputError

LIMITS = ("min_score", "edge", "max_aspect", "max_deviation", "max_outlier", "neighbours")


def add_parser(commands) -> None:
    """Add the command."""
    summary = "write a page on which a person checks feature files by eye: images without a cell, odd cells, maps"
    parser = new_command(commands, "qc", qc, summary, overwrite=False)
    parser.add_argument("stores", nargs="+", metavar="FILE", help="feature file of a centre, or all its shards")
    parser.add_argument("-o", "--output", required=True, help="page to write, for example qc.html; flags go to a .csv")
    latents = ".h5ad file with the latents of the same cells (default: the detector's features, averaged)"
    images = "folder below which the images lie, to show them"
    add(parser, {"--embedding FILE": latents, "--images DIR": images})
    parser.add_argument("--min-score", type=fraction, default=0.8, help="flag cells of a lower score")
    parser.add_argument("--edge", type=amount, default=1.0, metavar="PX", help="flag boxes so near to the image's edge")
    parser.add_argument("--max-aspect", type=amount, default=1.8, help="flag boxes so many times longer than wide")
    deviation = "flag sizes and contrasts of a larger robust z-score (MAD)"
    parser.add_argument("--max-deviation", type=amount, default=3.5, help=deviation)
    outlier = "flag cells whose distance to others has a larger one"
    parser.add_argument("--max-outlier", type=amount, default=3.5, help=outlier)
    parser.add_argument("--neighbours", type=positive, default=10, help="nearest cells that outliers are measured by")
    parser.add_argument("--max-rows", type=positive, default=200, help="maximum flagged cells in the page")
    parser.add_argument("--max-points", type=positive, default=3000, help="maximum cells in a plot")
    parser.add_argument("--max-pictures", type=positive, default=60, help="maximum pictures of images without a cell")
    add_seed(parser)


def qc(arguments: argparse.Namespace) -> None:
    """Write the page and the table of flags."""
    from experiments.reports.qc import Shown, write_qc_page
    from experiments.reports.quality import Limits, check_stores, write_flags
    from mrcnn.feature_store import stores_by_centre
    from mrcnn.files.output_paths import check_output_file

    output = Path(arguments.output)
    flags = output.with_suffix(".csv")
    if flags == output:
        raise InputError(f"-o {output}: the flags are written beside the page with this ending; end it in .html")
    check_output_file(output)
    check_output_file(flags)
    limits = Limits(**chosen(arguments, *LIMITS))
    images = None if arguments.images is None else Path(arguments.images)
    if images is not None and not images.is_dir():
        raise InputError(f"--images {images}: no such folder; give the one with the images of the centres")
    embedding = None if arguments.embedding is None else Path(arguments.embedding)
    checks = check_stores(stores_by_centre(arguments.stores), limits, embedding)
    shown = Shown(arguments.max_rows, arguments.max_points, arguments.max_pictures, arguments.seed)
    write_flags(flags, checks)
    write_qc_page(output, checks, limits, shown, images=images, embedding=embedding, flags_file=flags.name)
    print(f"{output}: {sum(len(check.by_row) for check in checks)} cells to look at, all flags in {flags}")
