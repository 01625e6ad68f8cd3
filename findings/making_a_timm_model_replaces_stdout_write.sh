#!/usr/bin/env bash
# `import timm` imports wandb where it is installed, and `import wandb` replaces `sys.stdout.write` and
# `sys.stderr.write`, although nobody has begun a run of it.
#
# Versions: timm 1.0.31, wandb 0.31.0, torch 2.14.1, torchvision 0.29.1 (CPU, Python 3.11).
#
# timm.utils.summary tries the import at its top, for the logs of timm's own training script, and
# timm imports timm.utils through timm.data. So a program that only makes a model prints through a
# function of a tracker from then on: it appears in every traceback and profile of a `print`. Seen:
#   sys.stdout.write before                   a method of TextIOWrapper
#   after `import timm`, without wandb        the same
#   after `import timm`, with wandb           write_with_callbacks of wandb.sdk.lib.console_capture
#   modules of wandb that are then loaded     237
#
# Takes about three minutes and 6 GB in a temporary folder. Fails if any of this has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.14.1 torchvision==0.29.1 timm==1.0.31
cd "$folder"
cat > written.py <<'PYTHON'
import json
import sys

before = type(sys.stdout.write).__name__
import timm  # noqa: E402, F401

write = sys.stdout.write
module = getattr(write, "__module__", None)
count = sum(name.partition(".")[0] == "wandb" for name in sys.modules)
print(json.dumps([before, getattr(write, "__name__", ""), module, count]))
PYTHON
echo "without wandb: $("$folder/venv/bin/python" written.py | tee without.json)"
"$folder/venv/bin/pip" install --quiet wandb==0.31.0
echo "with wandb:    $("$folder/venv/bin/python" written.py | tee with.json)"
"$folder/venv/bin/python" - <<'PYTHON'
import json

before, name, _, count = json.load(open("without.json"))
assert (before, name, count) == ("builtin_function_or_method", "write", 0)
before, name, module, count = json.load(open("with.json"))
assert before == "builtin_function_or_method"
assert (name, module) == ("write_with_callbacks", "wandb.sdk.lib.console_capture")
assert count > 100
PYTHON
echo "as stated"
