"""The commands and the tiny study of the experiments' tests."""

from tests.experiments.conftest import aecfe, make_study, refused, study_data, study_values  # noqa: F401
