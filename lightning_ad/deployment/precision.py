"""Exported files in less than float32: half the size in fp16, a quarter in int8."""

import tempfile
from pathlib import Path
from typing import Any, Literal

from data_modules.reading.images import Pixels
from lightning_ad.deployment.parity import inputs_of

QUANTIZED = ("Conv", "ConvTranspose", "Gemm")
"""Operators that int8 is for where they have a network's weights, which is most of all work.

The same operators search a memory, project patches and blur maps. These stay in float32: scales
that normal images set would cut off whatever is anomalous.
"""


def reduce(file: Path, precision: Literal["fp16", "int8"], normal: Pixels, draws: int) -> None:
    """Rewrite an ONNX file in less than float32; inputs and outputs stay as they are.

    Args:
        file: in float32.
        precision: ``fp16`` for all weights and activations, ``int8`` for those of products.
        normal: images (N, H, W, 3) whose activations set the scales of int8.
        draws: how often the method draws noise for each.
    """
    if precision == "fp16":
        _halve(file)
    else:
        _quantize(file, normal, draws)


def _halve(file: Path) -> None:
    import onnx
    from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16

    # A memory's norms and sums over many places leave the range of half precision.
    kept = [*DEFAULT_OP_BLOCK_LIST, "ReduceSumSquare", "ReduceL2", "ReduceSum", "Pow", "Sqrt"]
    model = convert_float_to_float16(onnx.load(file), keep_io_types=True, op_block_list=kept)
    onnx.save(model, file)


def _quantize(file: Path, normal: Pixels, draws: int) -> None:
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quantize_static,
    )

    class Images(CalibrationDataReader):
        """One image after the other."""

        def __init__(self) -> None:
            self._rest = iter(normal)

        def get_next(self) -> dict[str, Any] | None:
            pixels = next(self._rest, None)
            if pixels is None:
                return None
            return dict(inputs_of(pixels[None], 0.0, draws))

    with tempfile.TemporaryDirectory() as folder:
        quantized = Path(folder) / "int8.onnx"
        quantize_static(
            file,
            quantized,
            Images(),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(QUANTIZED),
            nodes_to_exclude=_of_no_network(file),
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
        file.write_bytes(quantized.read_bytes())


def _of_no_network(file: Path) -> list[str]:
    """Names of nodes whose weights are no parameter of a module, as the exporter names these."""
    import onnx

    graph = onnx.load(file).graph
    learned = {each.name for each in graph.initializer if each.name.endswith(".weight")}
    products = [node for node in graph.node if node.op_type in QUANTIZED]
    return [node.name for node in products if node.input[1] not in learned]
