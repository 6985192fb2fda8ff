"""Visual anomaly detection with diffusion models on PyTorch Lightning."""
