"""The section of a report on the cross-centre table: which method's descriptions travel."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from experiments import report_html as h
from experiments.figures import draw_score_dots, to_png
from experiments.report_run import Run

METHOD_NOTES = {
    "R-CNN-RF": "a forest on the detector's own features, no autoencoder",
    "AE-RF": "a forest on the latents of an autoencoder without domain adaptation",
    "AE-CFE": "a forest on the latents of the autoencoder that pulls the centres together",
}


def cross_centre_section(run: Run) -> h.Html:
    """The table of all methods on all pairs of centres, and what the centres hold."""
    title = "Does a classifier travel from centre to centre?"
    results = run.read_json("tables/cross_centre.json")
    if results is None:
        return h.section("cross-centre", title, h.not_run("The cross-centre evaluation", "tables/cross_centre.json"))
    methods, settings = results["methods"], results["settings"]
    entries = {(s["trained_on"], s["tested_on"], s["method"]): s for s in results["scores"]}
    pairs = [(a, b) for a in results["centres"] for b in results["centres"]]
    tested = {
        "test": "on the test part of every centre",
        "all": "on all cells of the other centres, and on the test part of its own",
    }[settings["test_on"]]
    protocol = (
        f"Protocol: random forest of {settings['trees']} trees of depth {settings['max_depth']} at most, "
        f"trained on the training part (80 %) of one centre, tested {tested}; mean ± standard deviation "
        f"over {settings['runs']} forests that differ in their seed."
    )
    explained = (
        "Each row trains a classifier on the labels of one centre and lets it name the cells of another. "
        "Accuracy is the share of cells named rightly; balanced accuracy gives every cell type the same "
        "weight, however rare it is. A method is of use only above the column “largest class”: the "
        "accuracy of calling every cell by the commonest type. The rows that matter are those between "
        "different centres; tinted rows stay at home."
    )
    figures = []
    if pairs and methods:
        data = to_png(_score_figure(pairs, methods, entries))
        run.save_figure("cross_centre", data)
        caption = (
            "Balanced accuracy of each method, trained on the first centre and tested on the second; "
            "the grey mark is one type named for every cell."
        )
        figures = [h.figure(data, caption, caption, kind="narrow")]
    known = [h.Html(f"<b>{h.escape(m)}</b>: {h.escape(METHOD_NOTES[m])}") for m in methods if m in METHOD_NOTES]
    return h.section(
        "cross-centre",
        title,
        h.paragraph(explained),
        _score_table(pairs, methods, entries),
        h.paragraph(h.join(known, "; "), "." if known else "", kind="note"),
        h.paragraph(protocol, kind="note"),
        *figures,
        h.details("More measures of each row", _measure_table(results)),
        h.tag("h3", "What the centres hold"),
        h.paragraph("Centres that differ in how common the types are also differ in how hard they are.", kind="note"),
        _class_table(results),
    )


def means_across(results: Mapping[str, Any]) -> dict[str, tuple[float, float]]:
    """Mean accuracy and balanced accuracy of each method over the pairs of different centres."""
    means = {}
    for method in results["methods"]:
        rows = [s for s in results["scores"] if s["method"] == method and s["trained_on"] != s["tested_on"]]
        if rows:
            means[method] = tuple(
                sum(s[name]["mean"] for s in rows) / len(rows) for name in ("accuracy", "balanced_accuracy")
            )
    return means


def _score_table(pairs: Sequence[tuple[str, str]], methods: Sequence[str], entries: Mapping[tuple, Any]) -> h.Html:
    """Accuracy and balanced accuracy of each method on each pair; the best of a row is bold."""
    measures = ("accuracy", "balanced_accuracy")
    groups = h.tag(
        "tr",
        *(h.tag("th", "") for _ in range(2)),
        *(h.tag("th", method, class_="number", colspan=2, scope="colgroup") for method in methods),
        *(h.tag("th", "") for _ in range(2)),
        class_="groups",
    )
    columns = [h.tag("th", name, scope="col") for name in ("Trained on", "Tested on")]
    names = [*("accuracy", "balanced") * len(methods), "largest class", "cells"]
    head_row = h.tag("tr", *columns, *(h.tag("th", name, class_="number", scope="col") for name in names))
    rows, rates = [], []
    for trained_on, tested_on in pairs:
        found = [entries.get((trained_on, tested_on, method)) for method in methods]
        best = {m: max((e[m]["mean"] for e in found if e), default=None) for m in measures}
        cells = [h.tag("th", tested_on, scope="row")]
        for entry in found:
            for measure in measures:
                if entry is None:
                    cells.append(h.cell(h.DASH))
                    continue
                is_best = len(methods) > 1 and entry[measure]["mean"] == best[measure]
                cells.append(h.cell(_with_spread(entry[measure]), best=is_best))
        some = next((entry for entry in found if entry), None)
        cells += [h.cell(h.percent(some["majority_rate"])), h.cell(f"{some['num_test']:,}")] if some else []
        if some and trained_on != tested_on:
            rates.append(some["majority_rate"])
        rows.append(h.row(trained_on, cells, kind="same" if trained_on == tested_on else None))
    means = means_across({"methods": methods, "scores": list(entries.values())})
    if means:
        best = [max(mean[i] for mean in means.values()) for i in range(2)]
        cells = [h.tag("th", "mean of other centres", scope="row")]
        for method in methods:
            for i in range(2):
                value = means[method][i] if method in means else None
                is_best = len(means) > 1 and value == best[i]
                cells.append(h.cell(h.DASH if value is None else h.percent(value), best=is_best))
        rows.append(h.row("", [*cells, h.cell(h.percent(sum(rates) / len(rates))), h.cell("")], kind="total"))
    return h.table(
        [groups, head_row], rows, "Share of test cells named rightly, in percent; the best of a row is bold."
    )


def _measure_table(results: Mapping[str, Any]) -> h.Html:
    """Interval, macro F1 and numbers of cells of each row and method."""
    names = ("accuracy", "95 % interval", "macro F1", "training cells", "test cells", "of unseen types")
    texts = [h.tag("th", name, scope="col") for name in ("Trained on", "Tested on", "Method")]
    head_row = h.tag("tr", *texts, *(h.tag("th", name, class_="number", scope="col") for name in names))
    rows = []
    for entry in results["scores"]:
        low, high = entry["accuracy_interval"]
        cells = [
            h.cell(entry["tested_on"], number=False),
            h.cell(entry["method"], number=False),
            h.cell(_with_spread(entry["accuracy"])),
            h.cell(f"{100 * low:.1f} to {100 * high:.1f}"),
            h.cell(_with_spread(entry["macro_f1"])),
            *(h.cell(f"{entry[name]:,}") for name in ("num_train", "num_test", "num_unseen")),
        ]
        rows.append(h.row(entry["trained_on"], cells))
    caption = (
        "The interval (Wilson) says how sure the accuracy is for so many test cells. Cells of unseen types "
        "cannot be named rightly, since the training centre has none of them."
    )
    return h.table([head_row], rows, caption)


def _class_table(results: Mapping[str, Any]) -> h.Html:
    """Cells of each class in each centre."""
    counts, centres = results["class_counts"], list(results["class_counts"])
    rows = [h.row(h.spaced(n), [h.cell(f"{counts[c].get(n, 0):,}") for c in centres]) for n in results["classes"]]
    total = [sum(counts[c].values()) + results["unlabelled"].get(c, 0) for c in centres]
    rows.append(h.row("without a cell type", [h.cell(f"{results['unlabelled'].get(c, 0):,}") for c in centres]))
    rows.append(h.row("all cells", [h.cell(f"{value:,}") for value in total], kind="total"))
    return h.table([h.head_row("Cell type", centres)], rows, "Cells found, by type and centre.")


def _score_figure(pairs: Sequence[tuple[str, str]], methods: Sequence[str], entries: Mapping[tuple, Any]) -> Figure:
    scores = {}
    chance = [0.0] * len(pairs)
    for method in methods:
        found = [entries.get((*pair, method)) for pair in pairs]
        scores[method] = [e and (e["balanced_accuracy"]["mean"], e["balanced_accuracy"]["std"]) for e in found]
        # One class named for every cell has recall 1, the others 0.
        chance = [1 / len(e["recall"]) if e else c for e, c in zip(found, chance, strict=True)]
    names = [f"{trained_on} → {tested_on}" for trained_on, tested_on in pairs]
    return draw_score_dots(names, scores, chance, xlabel="balanced accuracy")


def _with_spread(value: Mapping[str, float]) -> h.Html:
    spread = h.tag("span", f" ± {100 * value['std']:.1f}", class_="spread")
    return h.Html(f"{100 * value['mean']:.1f}{spread}")
