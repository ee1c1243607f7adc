import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.reports.run_folder import Run, read_rows
from mrcnn.files.errors import InputError
from tests.experiments.reports.sample_runs import make_settings

LOG = b'step,loss\n10,"0,5"\n20,0.25\n'


def test_read_rows_reads_a_log_and_nothing_of_a_missing_file(tmp_path):
    (tmp_path / "log.csv").write_bytes(LOG)
    assert read_rows(tmp_path / "log.csv") == [{"step": "10", "loss": "0,5"}, {"step": "20", "loss": "0.25"}]
    assert read_rows(tmp_path / "none.csv") == []


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.integers(0, len(LOG)), st.binary(max_size=6), st.integers(0, 6))
def test_damaged_files_of_a_run_are_refused_or_read(at, inserted, cut):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "log.csv"
        path.write_bytes(LOG[:at] + inserted + LOG[at + cut :])
        (path.parent / "run.json").write_bytes(inserted)
        run = Run(path.parent, make_settings(path.parent), {}, seed=0)
        try:
            assert all(isinstance(value, str) for row in run.read_csv("log.csv") for value in row.values())
            run.read_json("run.json")
        except InputError as error:
            assert folder in str(error) and "\n" not in str(error)
