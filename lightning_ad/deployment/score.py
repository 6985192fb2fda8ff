"""Score photographs by an exported model: python score.py model.onnx photograph.png ...

Needs onnxruntime, numpy and opencv-python-headless alone; model.json and prepare.py lie beside it.
"""

import json
import sys
from pathlib import Path

import cv2
import onnxruntime
from prepare import READ, noise, seen  # the file beside this one

onnxruntime.set_default_logger_severity(3)  # a default threshold that can be given is meant
model, *files = sys.argv[1:]
card = json.loads(Path(model).with_suffix(".json").read_text("utf-8"))
session = onnxruntime.InferenceSession(model, providers=onnxruntime.get_available_providers())
for file in files:
    photograph = cv2.imread(file, READ)
    if photograph is None:
        sys.exit(f"{file} is no image that can be read")
    try:
        pixels = seen(photograph, card["preprocessing"])
    except ValueError as error:
        sys.exit(f"{file}: {error}")
    inputs = {"image": pixels[None]}  # and "threshold", to move it
    if card["noise_draws"]:
        inputs["noise"] = noise(pixels, card["noise_draws"])[None]
    score, anomalous = session.run(["score", "anomalous"], inputs)  # and "anomaly_map"
    verdict = "anomalous" if anomalous[0] else "normal"
    sys.stdout.write(f"{file}: {verdict}, score {score[0]:.6g}\n")
