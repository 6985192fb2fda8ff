"""Networks that a sampler calls again and again, as functions that a graph holds once.

Unrolled, ten steps are ten networks to trace and to translate, which takes minutes of a core. Here
such a network is traced alone, and each step calls the result, with weights that all calls share.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch._higher_order_ops.invoke_subgraph import invoke_subgraph
from torch.export import Dim

DOMAIN = "lightning_ad"
"""Of operators that stand for functions while a graph is translated."""

Call = Callable[["Function", tuple[Tensor, ...]], Tensor]
"""How a graph calls a function on inputs."""


class Function:
    """The forward of a network: a call of what was traced of it.

    Args:
        name: of the function.
        network: whose forward it takes the place of.
        inputs: that the network was called with; the first, and those as long, have the batch
            first.
        call: how a graph calls it.
    """

    def __init__(
        self, name: str, network: nn.Module, inputs: tuple[Tensor, ...], call: Call
    ) -> None:
        self.name, self._network, self._original = name, network, network.forward
        self._call = call
        batch = inputs[0].shape[:1]
        any_length = [{0: Dim.DYNAMIC} if given.shape[:1] == batch else None for given in inputs]
        traced = torch.export.export(network, inputs, dynamic_shapes=tuple(any_length))
        self.program = traced.run_decompositions({})  # nothing is overwritten in place any more

    def __call__(self, *inputs: Tensor) -> Tensor:
        """What the network gives, which is hidden from nobody who watches it inside."""
        if any(module._forward_pre_hooks for module in self._network.modules()):
            return self._original(*inputs)
        return self._call(self, inputs)

    def weights(self) -> list[Tensor]:
        """What the traced graph takes before its inputs."""
        held = {**dict(self._network.named_parameters()), **dict(self._network.named_buffers())}
        specs = self.program.graph_signature.input_specs
        return [held[spec.target] for spec in specs if spec.target is not None]


def as_region(function: Function, inputs: tuple[Tensor, ...]) -> Tensor:
    """Calls by torch's own operator for regions that repeat."""
    graph: Any = function.program.graph_module
    return invoke_subgraph(graph, function.name, *function.weights(), *inputs)[0]


def as_operator(function: Function, inputs: tuple[Tensor, ...]) -> Tensor:
    """Calls by an operator of ONNX that `define` says the meaning of."""
    shape, dtype = inputs[0].shape, inputs[0].dtype
    operator = f"{DOMAIN}::{function.name}"
    return torch.onnx.ops.symbolic(operator, inputs, dtype=dtype, shape=shape, version=1)


def share_repeated(detector: nn.Module, score: Callable[[], Any], call: Call) -> list[Function]:
    """Let the parts of a detector that ``score`` calls more than once be functions of a graph."""
    called = _called_again(detector, score)
    functions = [Function(name, part, inputs, call) for name, (part, inputs) in called.items()]
    for function, (part, _) in zip(functions, called.values(), strict=True):
        part.forward = function  # its attributes stay
    return functions


def _called_again(
    detector: nn.Module, score: Callable[[], Any]
) -> dict[str, tuple[nn.Module, tuple[Tensor, ...]]]:
    """Parts called more than once that give a tensor like their first input, and their inputs."""
    calls: dict[str, list[tuple[Tensor, ...]]] = {}
    parts = dict(detector.named_children())

    def watch(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def remember(part: nn.Module, inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor) and output.shape == inputs[0].shape:
                calls.setdefault(name, []).append(inputs)

        return remember

    hooks = [part.register_forward_hook(watch(name)) for name, part in parts.items()]
    score()
    for hook in hooks:
        hook.remove()
    return {name: (parts[name], found[0]) for name, found in calls.items() if len(found) > 1}


def define(model: Any, name: str, part: Any) -> None:
    """Put a translated function in the place of its calls, its weights among the model's.

    Args:
        model: `onnx_ir.Model` with calls by `as_operator`.
        name: of the function.
        part: `onnx_ir.Model` of it; no good for anything else afterwards.
    """
    import onnx_ir as ir
    from onnx_ir.passes.common import InlinePass

    body, shared = part.graph, []
    for inner in body.initializers.values():
        value = inner.const_value
        outer = ir.Value(name=f"{name}.{inner.name}", shape=inner.shape, type=inner.type)
        outer.const_value, inner.const_value = value, None
        model.graph.register_initializer(outer)
        shared.append(outer)
    body.inputs.extend(body.initializers.values())
    body.initializers.clear()
    function = ir.Function(DOMAIN, name, graph=body, attributes=())
    for node in model.graph:
        if node.op_identifier() == function.identifier():
            given = len(node.inputs)
            node.resize_inputs(given + len(shared))
            for number, outer in enumerate(shared, given):
                node.replace_input_with(number, outer)
    model.functions[function.identifier()] = function
    InlinePass()(model)
