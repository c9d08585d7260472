"""Published ways to measure few-shot classifiers: what is drawn, how often, with which options, and rows of results."""

from nlpmeta.protocols.base import Material, Protocol, Shape, Tasks, Ways
from nlpmeta.protocols.materials import DataChoice
from nlpmeta.protocols.published import (
    CLINC_OOS,
    KSHOT_ALL,
    MTEB_8SHOT,
    N_WAY,
    PROTAUGMENT,
    PROTOCOLS,
    STREAM,
    protocol,
)
from nlpmeta.protocols.results import Row
from nlpmeta.protocols.runs import Run, evaluate

__all__ = [
    "CLINC_OOS",
    "KSHOT_ALL",
    "MTEB_8SHOT",
    "N_WAY",
    "PROTAUGMENT",
    "PROTOCOLS",
    "STREAM",
    "DataChoice",
    "Material",
    "Protocol",
    "Row",
    "Run",
    "Shape",
    "Tasks",
    "Ways",
    "evaluate",
    "protocol",
]
