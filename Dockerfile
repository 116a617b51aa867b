FROM python:3.11-slim

RUN useradd --system --create-home --home-dir /srv/workspaces workspaces \
 && install -d -o workspaces /data
WORKDIR /srv/workspaces

COPY . .
# Editable, so that there is one copy of the code.
RUN pip install --no-cache-dir --no-deps --require-hashes -r requirements/image.txt \
 && pip install --no-cache-dir --no-deps --no-build-isolation -e .

ENV PYTHONUNBUFFERED=1 \
    HOST=0.0.0.0 \
    WORKSPACES_DATA_DIR=/data
# A volume mounted here takes its owner from the image, so the unprivileged user can write to it.
VOLUME /data
USER workspaces
