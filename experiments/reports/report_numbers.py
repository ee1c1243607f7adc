"""Numbers of a report: the cards at its head, scores across centres, the detector, settings."""

import json
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from experiments.figures.style import draw_loss_curves, draw_score_dots, to_png
from experiments.reports.page import percent
from experiments.reports.run_folder import AUTOENCODER_NAMES, AUTOENCODERS, Run

DETECTOR_PANELS = {
    "All terms": ("loss",),
    "Proposals": ("rpn_class_loss", "rpn_bbox_loss"),
    "Heads": ("mrcnn_class_loss", "mrcnn_bbox_loss", "mrcnn_mask_loss"),
}
AUTOENCODER_PANELS = {
    "Features (MSE)": ("feature_loss",),
    "Image": ("image_loss",),
    "Adaptation (distance of centres)": ("adaptation_loss",),
}
MEASURES = ("accuracy", "balanced_accuracy")
MORPHOLOGY = "Morphology"

Entries = Mapping[tuple[str, str, str], Mapping[str, Any]]  # by training centre, test centre and method


def cross_centre_section(run: Run) -> dict[str, Any]:
    """The scores of all methods on all pairs of centres, and what the centres hold."""
    results, entries = _scores(run)
    if not results:
        return {}
    methods, counts = results["methods"], results["class_counts"]
    pairs = [(a, b) for a in results["centres"] for b in results["centres"]]
    found = {pair: {method: entries.get((*pair, method)) for method in methods} for pair in pairs}
    classes = [[name, *(of.get(name, 0) for of in counts.values())] for name in results["classes"]]
    classes.append(["without a cell type", *(results["unlabelled"].get(centre, 0) for centre in counts)])
    classes.append(["all cells", *map(sum, zip(*(row[1:] for row in classes), strict=True))])
    rates = {(a, b): entry["majority_rate"] for (a, b, _), entry in entries.items() if a != b}
    means = _means_across(entries)
    return {
        "results": results,
        "rows": [(*pair, of, _best(of)) for pair, of in found.items()],
        "means": {method: means.get(method) for method in methods},
        "best_mean": _best(means),
        "rate": sum(rates.values()) / len(rates) if rates else None,
        "figure": _score_figure(run, found, methods) if pairs and methods else None,
        "classes": classes,
    }


def detector_section(run: Run) -> dict[str, Any]:
    """Scores of the detector on each centre, and its training curves."""
    metrics = (run.read_json("detector/metrics.json") or {}).get("centres") or {}
    return {
        "metrics": metrics,
        "measures": dict.fromkeys(name for values in metrics.values() for name in values),
        "curves": _curves(run, {"detector": "detector"}, "detector_training", DETECTOR_PANELS),
    }


def autoencoder_curves(run: Run) -> bytes | None:
    """Training curves of the autoencoders."""
    folders = {AUTOENCODER_NAMES[name]: folder for name, folder in AUTOENCODERS.items()}
    return _curves(run, folders, "autoencoder_training", AUTOENCODER_PANELS, log_scale=True)


def settings_section(run: Run) -> dict[str, Any]:
    """Everything that made this run: settings, versions, command."""
    folders = {"detector": "detector", **{AUTOENCODER_NAMES[n]: folder for n, folder in AUTOENCODERS.items()}}
    written = yaml.safe_dump(run.settings.to_dict(), sort_keys=False, allow_unicode=True)
    files = [("Settings of the run (YAML)", written)]
    for name, folder in folders.items():
        if (values := run.read_json(f"{folder}/config.json")) is not None:
            text = json.dumps(values, indent=2, ensure_ascii=False)
            files.append((f"All settings of the {name} (JSON)", text))
    records = {name: run.read_json(f"{folder}/run.json") for name, folder in folders.items()}
    records = {name: record for name, record in records.items() if record}
    return {
        "files": files,
        "records": records,
        "libraries": dict.fromkeys(name for record in records.values() for name in record.get("versions", {})),
        "commands": sorted({shlex.join(map(str, r.get("command") or ())) for r in records.values()} - {""}),
    }


def finding(run: Run) -> str:
    """What the run found, in a sentence; empty without scores across centres."""
    results, entries = _scores(run)
    shares = {method: mean["accuracy"]["mean"] for method, mean in _means_across(entries).items()}
    if not shares:
        return ""
    best = max(shares, key=shares.__getitem__)
    others = [name for name in (MORPHOLOGY, *AUTOENCODERS) if name in shares and name != best]
    rates = [entry["majority_rate"] for (a, b, _), entry in entries.items() if a != b]
    compared = [f"{name} for {percent(shares[name])}" for name in others]
    compared.append(f"always naming the commonest type for {percent(sum(rates) / len(rates))}")
    return (
        f"A classifier trained in one centre is right for {percent(shares[best])} of the cells of another with {best}; "
        f"{', '.join(compared)}."
    )


def key_numbers(run: Run) -> list[tuple[str, str, str]]:
    """Cards: (name, value, detail)."""
    cards = []

    def add(name: str, value: str, values: Mapping[str, Any], form: str) -> None:
        cards.append((name, value, ", ".join(f"{key} {form.format(number)}" for key, number in values.items())))

    counts = {name: check.counts for name, check in run.checks.items()}
    images, found, cells = (sum(of[name] for of in counts.values()) for name in ("images", "found", "cells"))
    if counts:
        add("Cells", f"{cells:,}", {centre: of["cells"] for centre, of in counts.items()}, "{:,}")
    if images:
        cards.append(("Images with a cell found", percent(found / images), f"{found:,} of {images:,} images"))
    metrics = (run.read_json("detector/metrics.json") or {}).get("centres", {})
    for known, name in ((True, "Detector AP50, held-out images"), (False, "Detector AP50, unseen centres")):
        values = {c: m["box_ap50"] for c, m in metrics.items() if m.get("held_out") is known}
        values = {centre: value for centre, value in values.items() if value is not None}
        if values:
            add(name, f"{sum(values.values()) / len(values):.2f}", values, "{:.2f}")
    steps = {n: (run.read_json(f"{AUTOENCODERS[n]}/run.json") or {}).get("steps") for n in run.autoencoders}
    steps = {n: count for n, count in steps.items() if count}
    if steps:
        add("Autoencoder steps", f"{max(steps.values()):,}", steps, "{:,}")
    means = {method: 100 * mean["balanced_accuracy"]["mean"] for method, mean in _means_across(_scores(run)[1]).items()}
    if means:
        add("Best balanced accuracy across centres", f"{max(means.values()):.1f} %", means, "{:.1f} %")
    return cards


def _curves(run: Run, folders: Mapping[str, str], name: str, panels: Mapping, **options: Any) -> bytes | None:
    """Training curves from the logs in some folders; None if there is no log."""
    logs = {title: run.read_csv(f"{folder}/log.csv") for title, folder in folders.items()}
    logs = {title: rows for title, rows in logs.items() if rows}
    return run.save_figure(name, to_png(draw_loss_curves(logs, panels, **options))) if logs else None


def _scores(run: Run) -> tuple[dict[str, Any], Entries]:
    """The cross-centre table, empty if there is none; and of several classifiers the one of the main tables."""
    results = run.read_json("tables/cross_centre.json") or {}
    entries: dict[tuple[str, str, str], Any] = {}
    for score in results.get("scores", ()):
        entries.setdefault((score["trained_on"], score["tested_on"], score["method"]), score)
    return results, entries


def _means_across(entries: Entries) -> dict[str, dict[str, Any]]:
    """For each method, scores in the form of an entry: the means over the pairs of different centres."""
    across: dict[str, list[Mapping[str, Any]]] = {}
    for (trained_on, tested_on, method), entry in entries.items():
        if trained_on != tested_on:
            across.setdefault(method, []).append(entry)
    return {
        method: {name: {"mean": sum(e[name]["mean"] for e in rows) / len(rows), "runs": ()} for name in MEASURES}
        for method, rows in across.items()
    }


def _best(found: Mapping[str, Mapping[str, Any] | None]) -> dict[str, float | None]:
    """The best mean of each measure, to be marked, if there are several methods."""
    entries = [entry for entry in found.values() if entry and len(found) > 1]
    return {name: max((entry[name]["mean"] for entry in entries), default=None) for name in MEASURES}


def _score_figure(run: Run, found: Mapping[tuple[str, str], Mapping[str, Any]], methods: Sequence[str]) -> bytes:
    """Balanced accuracy of each method on each pair, as dots."""
    scores, chance = {}, [0.0] * len(found)
    for method in methods:
        own = [of[method] for of in found.values()]
        scores[method] = [e and (e["balanced_accuracy"]["mean"], e["balanced_accuracy"]["std"]) for e in own]
        # The class that is predicted for every cell has recall 1, the others 0.
        chance = [1 / len(e["recall"]) if e else c for e, c in zip(own, chance, strict=True)]
    names = [f"{trained_on} → {tested_on}" for trained_on, tested_on in found]
    return run.save_figure("cross_centre", to_png(draw_score_dots(names, scores, chance, xlabel="balanced accuracy")))
