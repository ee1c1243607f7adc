"""Results of the benchmarks: name -> value, unit, goal; printed as they come and kept as JSON."""

import json
from pathlib import Path
from typing import Any

Results = dict[str, dict[str, Any]]

AT_MOST = {
    "detect_default": 5.5,
    "detect_smear": 3.0,
    "extract_smear": 2.4,
    "train_step_default": 30.0,
    "extract_memory_growth": 5.0,
    "store_overhead": 1.05,
    "memory_100k_over_1k": 1.1,
    "seconds_to_first_result": 15.0,
    "peak_memory": 1.5,
    "models_size": 25.0,
}
AT_LEAST = {
    "train_vs_wall": 0.7,
    "embed_vs_train": 120.0,
    "store_read": 50.0,
    "features_small": 25.0,
    "features_small_over_torchvision": 8.0,
    "train_steps_small_over_resnet50": 4.0,
}


def add(results: Results, name: str, value: float | str, unit: str) -> None:
    """Note a result with its goal, and print it."""
    goal = AT_MOST.get(name, AT_LEAST.get(name))
    results[name] = {"value": value, "unit": unit, "goal": goal}
    bound = "at most" if name in AT_MOST else "at least"
    suffix = "" if goal is None else f"   (goal: {bound} {goal:g})"
    shown = f"{value:.2f}" if isinstance(value, float) else value
    print(f"{name:34} {shown} {unit}{suffix}", flush=True)


def missed_goals(results: Results) -> list[str]:
    """Names of the results that miss their goals."""
    over = [name for name, goal in AT_MOST.items() if name in results and results[name]["value"] > goal]
    return over + [name for name, goal in AT_LEAST.items() if name in results and results[name]["value"] < goal]


def print_missed_goals(results: Results) -> None:
    """Say which goals are missed, if any."""
    if missed := missed_goals(results):
        print(f"goals missed: {', '.join(missed)}")


def read_results(path: str | Path) -> Results:
    """What an earlier benchmark wrote to a file; nothing if there is none."""
    try:
        return json.loads(Path(path).read_text())
    except FileNotFoundError:
        return {}
