import os
from nemo_platform import NeMoPlatform

client = NeMoPlatform(
 base_url=os.environ.get("NMP_BASE_URL", "http://localhost:8080"),
 workspace="default",
)

workspace = client.workspaces.retrieve("ml-team")
