#!/bin/sh
# Starts the studio in a Space. SPACE_HOST is the name under which browsers reach it, and PINXIT_TOKEN
# is a secret of the Space. A Space with storage has /data; without, pictures go when it restarts.
set -eu

data=/tmp/pinxit
if [ -w /data ]; then data=/data/pinxit; fi
mkdir -p "$data/runs" "$data/outputs"

exec pinxit studio ${PINXIT_CHECKPOINT:+"$PINXIT_CHECKPOINT"} \
  --host 0.0.0.0 --port 7860 --open 0 \
  --allow_host "${SPACE_HOST:-localhost}" \
  --runs "$data/runs" --out "$data/outputs" \
  --max_trainings 0 --max_waiting 16 --max_pictures 4 --max_steps 50 --max_side 512
