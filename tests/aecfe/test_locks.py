"""Two runs that write one output: the second is told who is writing."""

import pytest

from experiments.pipeline import Pipeline
from experiments.settings import RunSettings
from experiments.synthetic.centre import generate_centre
from mrcnn.feature_store import merge_stores
from mrcnn.files.atomic import OutputLock, write_json
from mrcnn.files.errors import InputError


def test_merge_takes_its_store_for_itself(study_data, tmp_path):
    with OutputLock(tmp_path / "all.h5"), pytest.raises(InputError, match=r"all.h5: another run \(pid"):
        merge_stores([study_data[1]["anna"]], tmp_path / "all.h5")
    (tmp_path / ".1234.tmp.all.h5").write_bytes(b"of a killed process")
    merge_stores([study_data[1]["anna"]], tmp_path / "all.h5")
    assert [path.name for path in tmp_path.iterdir()] == ["all.h5"]


def test_synth_takes_each_centre_for_itself(tmp_path, refused):
    command = ("synth", tmp_path / "smears", "--centres", "north", "--images", 1, "--size", 48)
    with OutputLock(tmp_path / "smears" / "north"):
        assert f"{tmp_path / 'smears' / 'north'}: another run" in refused(*command)
    for name in (".77.tmp.north", ".77.old.north", ".77.tmp.river"):
        (tmp_path / "smears" / name).mkdir(parents=True)
    generate_centre("north", tmp_path / "smears" / "north", num_images=1, seed=0, image_size=48)
    assert sorted(path.name for path in (tmp_path / "smears").iterdir()) == [".77.tmp.river", "north"]


def test_run_and_report_take_the_folder_of_the_run_for_themselves(study_values, tmp_path, monkeypatch, refused):
    settings = RunSettings(**{**study_values, "output": str(tmp_path / "run")})
    stages = []
    monkeypatch.setattr(Pipeline, "_run_stages", lambda self: stages.append(self.output))
    monkeypatch.setattr(Pipeline, "check_autoencoder_settings", lambda self: {})
    with OutputLock(tmp_path / "run", inside=True):
        with pytest.raises(InputError, match=r"run: another run \(pid \d+ on .*\) is writing it"):
            Pipeline(settings).run()
        write_json(tmp_path / "run" / "config.json", {**study_values, "output": str(tmp_path / "run")})
        assert "is writing it" in refused("report", tmp_path / "run")
    assert not stages
    Pipeline(settings).run()
    assert stages == [tmp_path / "run"]
