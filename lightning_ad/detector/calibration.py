"""What a detector learns beside its weights: named tensors that travel with it."""

from typing import Any

from torch import Tensor, nn


class NotCalibratedError(RuntimeError):
    """A detector scores images before it knows what only calibration tells."""


class Calibration(nn.Module):
    """Named tensors that travel with a detector and load whatever their shapes."""

    def __setitem__(self, name: str, value: Tensor) -> None:
        self.register_buffer(name, value)

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._buffers:
            raise NotCalibratedError(
                f"this detector has no calibrated '{name}': run all phases of 'lightning fit', "
                "or load the final.ckpt that it writes (a new method sets it in `set_constants`)"
            )
        return self.get_buffer(name)

    def __contains__(self, name: str) -> bool:
        return name in self._buffers

    def of(self, name: str, category: Tensor) -> Tensor:
        """The rows (B, ...) of ``name`` that belong to the categories (B,).

        Rows are in the order of the categories; the last, of all images, is `UNKNOWN_CATEGORY`'s.
        """
        return self[name].to(category.device)[category]

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *args: Any) -> None:
        for name in [key.removeprefix(prefix) for key in state_dict if key.startswith(prefix)]:
            self[name] = state_dict[prefix + name].clone()
        for name in [key for key in self._buffers if prefix + key not in state_dict]:
            del self._buffers[name]
