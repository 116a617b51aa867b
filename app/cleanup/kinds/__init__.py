"""The order in which a workspace is taken apart. A new kind: one file here, one import and one line below."""

from app.cleanup.kinds import (
    deployment_configs,
    deployments,
    entities,
    filesets,
    job_logs,
    jobs,
    projects,
    role_bindings,
    secrets,
)
from app.cleanup.kinds.base import Kind

ORDER: tuple[Kind, ...] = (
    jobs.KIND,  # running code writes filesets and holds deployments
    deployments.KIND,  # still serving; the last running thing
    secrets.KIND,  # nothing runs any more that could use them
    deployment_configs.KIND,  # deployments were made from them
    job_logs.KIND,  # nothing runs any more that could add to them
    filesets.KIND,  # nothing can write any more
    entities.KIND,  # no side effects
    projects.KIND,  # entities named them
    role_bindings.KIND,  # powerless; kept until now for audit and restore
)

KINDS = {kind.name: kind for kind in ORDER}
