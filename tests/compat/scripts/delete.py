"""Delete a workspace through the SDK and see that it is gone at once, for everybody.

Argument: its name. Prints the id of the deletion.
"""

import os
import sys

from nemo_platform import NeMoPlatform, NotFoundError

name = sys.argv[1]
client = NeMoPlatform(base_url=os.environ["NMP_BASE_URL"], workspace=name)

deletion_id = client.workspaces.delete(name).deletion_id

for principal in ("", "user-0@example.com", "stranger@example.com", "service:cleanup"):
    somebody = client.with_options(default_headers={"X-NMP-Principal-Id": principal} if principal else {})
    for look in (
        lambda who: who.workspaces.retrieve(name),
        lambda who: who.workspaces.members.list(),
        lambda who: who.entities.list("recipe"),
        lambda who: who.jobs.retrieve("job-0"),
        lambda who: who.inference.deployments.retrieve("serving-0"),
        lambda who: who.files.filesets.retrieve("set-0"),
        lambda who: who.secrets.access("secret-0"),
        lambda who: who.workspaces.update(name, description="still here?"),
        lambda who: who.projects.create(name="latecomer"),
    ):
        try:
            found = look(somebody)
        except NotFoundError:
            continue
        sys.exit(f"{principal or 'nobody'} can still reach: {found}")
    if name in [workspace.name for workspace in somebody.workspaces.list(page_size=1000)]:
        sys.exit(f"{principal or 'nobody'} still finds it in the list")

print(deletion_id)  # noqa: T201 -- this is what the test reads
