"""One pydantic model per notebook; YAML in and out. Wrong parameters stop a stage before any work."""

from finr1.params.base import ParameterError, Params, read_flat_yaml
from finr1.params.stages import (
    API_KEY,
    NOTEBOOKS,
    RECIPE,
    STAGES,
    AblationParams,
    BenchmarkParams,
    CompareParams,
    DataParams,
    DistillationParams,
    FilteringParams,
    GRPOParams,
    OverviewParams,
    ReportParams,
    SFTParams,
    TrainingParams,
    key_variable,
)

__all__ = [
    "API_KEY", "NOTEBOOKS", "RECIPE", "STAGES", "AblationParams", "BenchmarkParams", "CompareParams", "DataParams",
    "DistillationParams", "FilteringParams", "GRPOParams", "OverviewParams", "ParameterError", "Params", "ReportParams",
    "SFTParams", "TrainingParams", "key_variable", "read_flat_yaml",
]  # fmt: skip
