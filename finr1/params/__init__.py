"""One pydantic model per notebook; YAML in and out. Wrong parameters stop a stage before any work."""

from finr1.params.analyses import AblationParams, CompareParams
from finr1.params.base import Params
from finr1.params.curation import DataParams, DistillationParams, FilteringParams
from finr1.params.errors import ParameterError
from finr1.params.evaluation import BenchmarkParams, ReportParams
from finr1.params.fields import API_KEY, RECIPE, key_variable
from finr1.params.stages import NOTEBOOKS, STAGES, OverviewParams
from finr1.params.training import GRPOParams, SFTParams, TrainingParams
from finr1.params.yaml_file import FlatYaml, read_flat_yaml
from finr1.paths import repository_root

__all__ = [
    "API_KEY",
    "NOTEBOOKS",
    "STAGES",
    "AblationParams",
    "BenchmarkParams",
    "CompareParams",
    "DataParams",
    "DistillationParams",
    "FilteringParams",
    "FlatYaml",
    "GRPOParams",
    "OverviewParams",
    "ParameterError",
    "Params",
    "RECIPE",
    "ReportParams",
    "SFTParams",
    "TrainingParams",
    "key_variable",
    "read_flat_yaml",
    "repository_root",
]
