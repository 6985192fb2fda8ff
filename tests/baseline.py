"""A method of the kind that trains nothing and reconstructs nothing."""

import torch

from lightning_ad import AnomalyDetector
from lightning_ad.detector.memory import MemoryPass
from lightning_ad.detector.processes import of_all_processes


class Total(MemoryPass):
    """Adds up the images, and forgets each."""

    def __init__(self):
        self.total, self.count = torch.zeros(3, 1, 1, dtype=torch.float64), 0

    def observe(self, image, category, path):
        self.total = self.total + image.double().sum(0).cpu()
        self.count += len(image)

    def finish(self):
        shares = of_all_processes((self.total, self.count))
        self.mean = sum(total for total, _ in shares) / sum(count for _, count in shares)


class FromMeanImage(AnomalyDetector):
    """Takes how far an image lies from the mean training image for its anomaly."""

    def phases(self):
        return []

    def memory_passes(self, device):
        total = Total()
        yield total
        self.calibration["mean"] = total.mean.float()

    def compare(self, image, category):
        mean = self.calibration["mean"].to(image.device)
        return None, {"pixel": (image - mean).abs().mean(1, keepdim=True)}
