"""The tiny study of the experiments' tests, whose commands are tested here."""

from tests.experiments.conftest import make_study, study_data, study_values  # noqa: F401
