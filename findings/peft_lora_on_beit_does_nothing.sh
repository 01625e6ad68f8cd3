#!/usr/bin/env bash
# LoRA on the attention of a timm BEiT or EVA-02 is accepted by peft, trains nothing, and changes the
# model when it is merged.
#
# Versions: timm 1.0.31, peft 0.21.2, torch 2.14.1 (CPU, Python 3.11).
#
# timm's notebook-style setting is target_modules=["qkv"]. The attention of BEiT and of EVA-02 reads
# the weight of its layer `qkv` and multiplies by itself, to add a bias of its own; the layer that
# peft wraps is never called. With adapters of random weights, seen:
#   model        adapters  output changes by  output has a gradient  merged differs from adapted by
#   deit_tiny    12        3.4                yes                    6e-6
#   eva02_tiny   12        0                  no                     4.7
#   beit_base    12        0                  no                     2.5
# No warning is given: print_trainable_parameters counts the adapters in all three. Whoever offers
# adapters for any timm model should check that a forward pass calls the wrapped layers.
#
# Takes about five minutes and 6 GB in a temporary folder. Fails if any of this has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.14.1 torchvision==0.29.1 timm==1.0.31 peft==0.21.2
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import timm
import torch
from peft import LoraConfig, get_peft_model

seen = {}
for name in ("deit_tiny_patch16_224", "eva02_tiny_patch14_224", "beit_base_patch16_224"):
    torch.manual_seed(0)
    model = timm.create_model(name, pretrained=False, num_classes=0).eval()
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.05)
    images = torch.randn(1, *model.default_cfg["input_size"])
    with torch.no_grad():
        before = model(images)
    adapted = get_peft_model(model, LoraConfig(r=4, target_modules=["qkv"]))
    adapters = [p for key, p in adapted.named_parameters() if "lora_B" in key]
    for parameter in adapters:
        torch.nn.init.normal_(parameter)
    output = adapted(images)
    merged = adapted.merge_and_unload().eval()
    with torch.no_grad():
        after = merged(images)
    changed = float((output.detach() - before).abs().max())
    apart = float((after - output.detach()).abs().max())
    seen[name] = (len(adapters), changed > 0, output.requires_grad, apart < 1e-3)
    print(name, f"{changed:.3g}", output.requires_grad, f"{apart:.3g}")

works, nothing = (12, True, True, True), (12, False, False, False)
wanted = {
    "deit_tiny_patch16_224": works,
    "eva02_tiny_patch14_224": nothing,
    "beit_base_patch16_224": nothing,
}
assert seen == wanted, seen
PYTHON
echo "as described"
