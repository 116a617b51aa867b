FROM python:3.11-slim

# A number, so that whoever runs the image can see that it is not root.
RUN groupadd --system --gid 999 workspaces \
 && useradd --system --uid 999 --gid workspaces --create-home --home-dir /srv/workspaces workspaces \
 && install -d -o workspaces -g workspaces /data
WORKDIR /srv/workspaces

# Before the code, so that a change of it installs nothing again.
COPY requirements/image.txt requirements/
RUN pip install --no-cache-dir --no-deps --require-hashes -r requirements/image.txt

COPY . .
# Editable, so that there is one copy of the code; compiled now, because the root of a container may be read-only.
RUN pip install --no-cache-dir --no-deps --no-build-isolation -e . \
 && python -m compileall -q app workers migrations

ENV PYTHONUNBUFFERED=1 \
    HOST=0.0.0.0 \
    WORKSPACES_DATA_DIR=/data
# A volume mounted here takes its owner from the image, so the unprivileged user can write to it.
VOLUME /data
USER 999:999

# That of `web`; docker-compose.yml has another for each process that answers elsewhere.
HEALTHCHECK --interval=10s --timeout=10s --start-period=20s \
    CMD ["python", "-c", "import os, urllib.request as u; u.urlopen(f'http://127.0.0.1:{os.environ.get(\"PORT\", 8080)}/health/ready', timeout=5)"]
