"""Deployment configurations: plain rows, needed until the last deployment made from them is gone."""

from app.cleanup.kinds.base import RowsKind
from app.cleanup.kinds.rows import oldest_rows_of
from app.models import DeploymentConfig

KIND = RowsKind("deployment_configs", DeploymentConfig, oldest_rows_of(DeploymentConfig))
