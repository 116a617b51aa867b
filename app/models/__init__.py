"""The tables. Importing this package registers all of them."""

from app.models.access_key import AccessKey
from app.models.audit import AuditRecord
from app.models.deletion import (
    CleanupControl,
    Deletion,
    DeletionEvent,
    DeletionFailure,
    DeletionFailureCount,
    DeletionHold,
)
from app.models.deployment import Deployment, DeploymentConfig
from app.models.entity import Entity
from app.models.fileset import Fileset, StoreRecord
from app.models.job import Job, JobLog
from app.models.maintenance import Heartbeat, MaintenanceStep, OrphanScan, Retention
from app.models.notification import Delivery, Subscription
from app.models.project import Project
from app.models.resource_count import DeletionCounter, ResourceCount
from app.models.role_binding import PrincipalErasure, RoleBinding
from app.models.secret import Secret
from app.models.workspace import BUILT_IN, Workspace

__all__ = [
    "BUILT_IN",
    "AccessKey",
    "AuditRecord",
    "CleanupControl",
    "Deletion",
    "DeletionCounter",
    "DeletionEvent",
    "DeletionFailure",
    "DeletionFailureCount",
    "DeletionHold",
    "Delivery",
    "Deployment",
    "DeploymentConfig",
    "Entity",
    "Fileset",
    "Heartbeat",
    "Job",
    "JobLog",
    "MaintenanceStep",
    "OrphanScan",
    "PrincipalErasure",
    "Project",
    "ResourceCount",
    "Retention",
    "RoleBinding",
    "Secret",
    "StoreRecord",
    "Subscription",
    "Workspace",
]
