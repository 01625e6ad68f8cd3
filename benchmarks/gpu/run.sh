#!/usr/bin/env bash
# Everything that waits for a GPU, in one command: bash benchmarks/gpu/run.sh
#   [--only NAME ...] [--minutes 8] [--out DIR] [--tiny]
# What the machine's python3 lacks is taken from benchmarks/gpu/wheels, see wheels.sh; neither Ray
# nor the network is needed.
set -euo pipefail
cd "$(dirname "$0")/../.."
python=${PYTHON:-python3}
site=$(mktemp -d)
trap 'rm -rf "$site"' EXIT
# The wheels are for Python 3.12; an environment that can train already has all of it.
if compgen -G 'benchmarks/gpu/wheels/*.whl' >/dev/null && ! "$python" -c 'import gsfl_tune.training' 2>/dev/null; then
  "$python" -m pip install --quiet --no-index --no-deps --no-compile --no-cache-dir \
    --disable-pip-version-check --root-user-action=ignore --target "$site" benchmarks/gpu/wheels/*.whl
fi
# For the step that compares two trainings to the last bit.
export CUBLAS_WORKSPACE_CONFIG=:4096:8
export PYTHONPATH="$site:$PWD:$PWD/benchmarks${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
# Caches of this run alone: a cache of an earlier one must not make a step pass.
export GSFL_TUNE_CACHE="$site/cache"
"$python" -m benchmarks.gpu "$@"
