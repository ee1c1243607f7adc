"""The base class of settings, and YAML of unknown origin."""

from typing import Literal

import pytest
from pydantic import Field, model_validator

from mrcnn.files.errors import InputError
from mrcnn.files.settings import Settings, did_you_mean, overrides, parse_yaml


class Stain(Settings):
    beta: float = Field(5.0, ge=0)
    size: int = Field(50, ge=1, le=100)
    kind: Literal["mean", "sum"] = "mean"
    blocks: tuple[int, ...] = Field((1, 2), strict=False)

    @model_validator(mode="after")
    def _check(self):
        if self.kind == "sum" and self.beta == 0:
            raise ValueError("a sum wants a beta above 0")
        return self


class Study(Settings):
    stain: Stain = Stain()
    changes: overrides(Stain) = {}
    centres: dict[str, Stain] = {}
    note: str | None = None


def fault(values):
    with pytest.raises(InputError) as error:
        Study.from_dict(values, where="my.yaml")
    return str(error.value)


def test_settings_take_plain_values_and_keep_the_rest():
    study = Study.from_dict({"stain": {"beta": 2, "blocks": [3]}, "changes": {"size": 7}, "centres": {"a": {}}})
    assert (study.stain.beta, study.stain.blocks, study.stain.size) == (2.0, (3,), 50)
    assert study.changes == {"size": 7} and study.centres["a"] == Stain()
    assert Study.from_dict(study.to_dict()) == study
    assert study.stain.replace(size=8).size == 8 and study.stain.size == 50


def test_every_fault_is_told_at_once_with_its_path():
    told = fault({"stain": {"betta": 1, "size": True}, "changes": {"beta": -1}, "centres": {"beta": {"kind": "max"}}})
    assert told.startswith("my.yaml: ") and "\n" not in told
    for part in (
        "unknown setting stain.betta, did you mean 'beta'?",
        "stain.size must be a valid integer, got True",
        "changes.beta must be greater than or equal to 0, got -1",
        "centres.beta.kind must be 'mean' or 'sum', got 'max'",
    ):
        assert part in told


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"stain": {"size": 3.0}}, "stain.size must be a valid integer, got 3.0"),
        ({"stain": {"beta": "1e-3"}}, "stain.beta must be a valid number, got '1e-3' (write 1.0e-3 for 1e-3)"),
        ({"stain": {"beta": float("nan")}}, "stain.beta must be a finite number, got nan"),
        ({"stain": {"beta": 0, "kind": "sum"}}, "stain: a sum wants a beta above 0"),
        ({"stain": {"blocks": [1, "2"]}}, "stain.blocks.1 must be a valid integer, got '2'"),
        ({"centres": {"a": {"bet": 1}}}, "unknown setting centres.a.bet, did you mean 'beta'?"),
        ({"changes": {"zzz": 1}}, "unknown setting changes.zzz, known are beta, size, kind, blocks"),
        ({"stain": 5}, "stain must be settings with keys, got 5"),
        ([1], "must be settings with keys, got [1]"),
    ],
)
def test_a_fault_reads_as_a_sentence(values, told):
    assert fault(values) == f"my.yaml: {told}"


def test_constructing_raises_the_same_error():
    with pytest.raises(InputError, match="^size must be less than or equal to 100, got 101$"):
        Stain(size=101)
    assert did_you_mean("learning_raet", ["LEARNING_RATE", "SEED"]) == "did you mean 'LEARNING_RATE'?"


def test_load_reads_yaml_and_json_and_names_the_file(tmp_path):
    for name, text in (("a.yaml", "\ufeffbeta: 1\n"), ("a.json", '{"beta": 1e0}'), ("empty.yml", "")):
        (tmp_path / name).write_text(text, encoding="utf-8")
        assert Stain.load(tmp_path / name).beta == (5 if name == "empty.yml" else 1)
    with pytest.raises(InputError, match=r"no\.yaml: no such configuration"):
        Stain.load(tmp_path / "no.yaml", missing="no such configuration")
    (tmp_path / "a.yaml").write_text("beta: [\n")
    with pytest.raises(InputError, match=r"a\.yaml: not YAML"):
        Stain.load(tmp_path / "a.yaml")


@pytest.mark.parametrize(
    "text", ["!!python/object/apply:os.system [ls]", "!!int x", "2020-13-45", "[" * 5000, b"\xff", "{[1]: 2}"]
)
def test_hostile_yaml_is_refused_in_one_line(text):
    with pytest.raises(InputError, match="^here: not YAML"):
        parse_yaml(text, "here")


def test_aliases_of_aliases_do_not_fill_the_memory():
    levels = "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 30))
    told = fault(parse_yaml(f"a0: &a0 [x]\n{levels}note: *a29\n", "bomb"))
    assert "note must be a valid string" in told and len(told) <= 1000
