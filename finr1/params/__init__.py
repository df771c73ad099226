"""One pydantic model per notebook; YAML in and out. Wrong parameters stop a stage before any work."""

from finr1.params.base import ParameterError, Params, read_flat_yaml
from finr1.params.fields import API_KEY, key_variable
from finr1.params.stages import (
    NOTEBOOKS,
    RECIPE,
    STAGES,
    AblationParams,
    BenchmarkParams,
    CompareParams,
    DataParams,
    DistillationParams,
    FilteringParams,
    OverviewParams,
    ReportParams,
)
from finr1.params.training import GRPOParams, SFTParams, TrainingParams

__all__ = [
    "API_KEY", "NOTEBOOKS", "RECIPE", "STAGES", "AblationParams", "BenchmarkParams", "CompareParams", "DataParams",
    "DistillationParams", "FilteringParams", "GRPOParams", "OverviewParams", "ParameterError", "Params", "ReportParams",
    "SFTParams", "TrainingParams", "key_variable", "read_flat_yaml",
]  # fmt: skip
