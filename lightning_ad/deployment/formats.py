"""The files that a graph is written to, and how they are run: ONNX and PyTorch's own programs."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.export import ExportedProgram

from lightning_ad.deployment.graph import INPUTS, OUTPUTS, Program
from lightning_ad.deployment.repeated import Call, as_operator, as_region, define

OPSETS = range(18, 24)
"""Versions of ONNX's operators that torch's exporter writes and ONNX Runtime reads."""
LARGEST = 2**31 - 2**20
"""Bytes of a file in ONNX's format, which allows 2 GiB."""

Inputs = dict[str, NDArray[Any]]


class Scored(NamedTuple):
    """What a file says about images."""

    anomaly_map: NDArray[np.float32]
    """(B, H, W)."""
    score: NDArray[np.float32]
    """(B,)."""
    anomalous: NDArray[np.bool_]
    """(B,), at the threshold given."""


Run = Callable[[Inputs], Scored]
"""Scores the inputs of the graph, by name."""


@dataclass(frozen=True)
class Format:
    """How a program is written to a file of one kind, and how that is run."""

    suffix: str
    packages: tuple[str, ...]
    """That it needs beside torch; the extra ``export`` installs them."""
    write: Callable[[Program, Path, float, int], None]
    """Writes a program with a threshold that is taken where none is given, in an opset."""
    load: Callable[[Path], Run]
    call: Call = as_region
    """How a program for it calls what repeats."""


def require_packages(packages: tuple[str, ...], extra: str) -> None:
    """Raise a ValueError that names the extra, if a package is missing."""
    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        raise ValueError(
            f"{', '.join(missing)} is needed and not installed: pip install 'lightning-ad[{extra}]'"
        )


def _distances(a: Tensor, b: Tensor, p: float, compute_mode: int | None = None) -> Tensor:
    """torch.cdist (N, M) of points (N, D) and (M, D), which ONNX has no operator for."""
    difference = (a[:, None] - b[None]).abs()
    return difference.sum(-1) if p == 1 else difference.square().sum(-1).sqrt()


def _places(edges: Tensor, values: Tensor, right: bool = False) -> Tensor:
    """torch.searchsorted (B, N) of values (B, N) among sorted edges (B, M), alike."""
    first, second = edges[:, None], values[:, :, None]
    return (first <= second if right else first < second).sum(-1)


LACKING = {
    torch.ops.aten.cdist.default: _distances,
    torch.ops.aten.searchsorted.Tensor: _places,
}
"""What D3AD and DeCo-Diff use and ONNX lacks, in operators that it has."""


def translated(
    program: ExportedProgram,
    opset: int,
    inputs: list[str] | None = None,
    outputs: list[str] | None = None,
) -> Any:
    """A program as the `torch.onnx.ONNXProgram` of an opset; inputs and outputs by these names."""
    if any(node.target in LACKING for node in program.graph.nodes):  # it traces once more
        program = program.run_decompositions(LACKING)
    return torch.onnx.export(
        program,
        dynamo=True,
        opset_version=opset,
        input_names=inputs,
        output_names=outputs,
        verbose=False,
    )


def _write_onnx(program: Program, path: Path, threshold: float, opset: int) -> None:
    """Write a program for ONNX Runtime, in which the threshold need not be given."""
    import onnx_ir as ir
    from onnx_ir.passes.common import ClearMetadataAndDocStringPass

    used = [name for name in INPUTS if name in _inputs_of(program.whole)]
    exported = translated(program.whole, opset, used, list(OUTPUTS))
    for function in program.functions:
        define(exported.model, function.name, translated(function.program, opset).model)
    graph = exported.model.graph
    value = next(value for value in graph.inputs if value.name == "threshold")
    value.const_value = ir.tensor(np.array(threshold, np.float32), name="threshold")
    graph.initializers["threshold"] = value
    for each in [*graph.inputs, *graph.outputs]:
        if each.name != "threshold":
            own: Any = each.shape
            each.shape = ir.Shape(["batch", *own[1:]])
    weights: list[Any] = [each.const_value for each in graph.initializers.values()]
    size = sum(weight.nbytes for weight in weights)
    if size > LARGEST:
        raise ValueError(
            f"weights and memory take {size / 2**30:.1f} GiB, a file of ONNX holds 2: take "
            "--format torch, fewer components or a smaller memory"
        )
    ClearMetadataAndDocStringPass()(exported.model)  # where in which file each operator is from
    exported.save(path)


def _load_onnx(path: Path) -> Run:
    import onnxruntime

    onnxruntime.set_default_logger_severity(3)  # a threshold with a default is no mistake
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda inputs: Scored(*session.run(list(OUTPUTS), inputs))


def _write_program(program: Program, path: Path, threshold: float, opset: int) -> None:
    buffer = BytesIO()  # of a path, torch asks for another ending than an unfinished file has
    torch.export.save(program.whole, buffer)
    path.write_bytes(buffer.getbuffer())


def _load_program(path: Path) -> Run:
    module = torch.export.load(BytesIO(path.read_bytes())).module()

    def run(inputs: Inputs) -> Scored:
        given = [torch.from_numpy(inputs[name]) for name in INPUTS if name in inputs]
        with torch.inference_mode():
            return Scored(*(found.numpy() for found in module(*given)))

    return run


def _inputs_of(program: ExportedProgram) -> tuple[str, ...]:
    return program.graph_signature.user_inputs


FORMATS = {
    "onnx": Format(
        ".onnx", ("onnx", "onnxruntime", "onnxscript"), _write_onnx, _load_onnx, as_operator
    ),
    "torch": Format(".pt2", (), _write_program, _load_program),
}
