"""A generator of device datasets, for trying the pipelines on data of any size and quality."""

from .config import GeneratorConfig, load_config
from .errors import ConfigError, GeneratorError, OutputError
from .rows import Device, Row, RowCounts, devices, row_counts
from .run import generate, write_csv

__all__ = [
    "ConfigError",
    "Device",
    "GeneratorConfig",
    "GeneratorError",
    "OutputError",
    "Row",
    "RowCounts",
    "devices",
    "generate",
    "load_config",
    "row_counts",
    "write_csv",
]
