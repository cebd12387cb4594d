"""Leaky ReLU in other libraries: JAX, ONNX Runtime, NumPy, each as its users would call it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import metadata, util
from typing import Any

import torch
from torch import Tensor

Call = Callable[[], Any]


@dataclass(frozen=True)
class Peer:
    """``forward(x, slope)``, ``backward(x, grad_output, slope)``: calls; ``tensor`` turns their results into tensors.

    Either may raise whatever the library raises for a dtype that it does not know.
    """

    name: str
    version: str
    forward: Callable[[Tensor, float], Call]
    backward: Callable[[Tensor, Tensor, float], Call] | None
    tensor: Callable[[Any], Tensor]


def _numpy() -> Peer:
    import numpy as np

    def forward(x: Tensor, slope: float) -> Call:
        # Two passes; where(x > 0, x, x * slope) takes three. The same for slopes from 0 to 1.
        array = x.numpy()
        factor = array.dtype.type(slope)
        return lambda: np.maximum(array, array * factor)

    def backward(x: Tensor, grad_output: Tensor, slope: float) -> Call:
        array, gradient = x.numpy(), grad_output.numpy()
        factor = array.dtype.type(slope)
        return lambda: np.where(array > 0, gradient, gradient * factor)

    return Peer("NumPy", f"NumPy {np.__version__}", forward, backward, torch.from_numpy)


def _jax() -> Peer:
    for name in ("NPROC", "PJRT_NPROC"):  # XLA's thread pool is made once, with as many threads as torch has
        os.environ[name] = str(torch.get_num_threads())
    import jax

    def forward(x: Tensor, slope: float) -> Call:
        function = jax.jit(lambda array: jax.nn.leaky_relu(array, slope))
        array = jax.dlpack.from_dlpack(x)
        return lambda: function(array).block_until_ready()

    def backward(x: Tensor, grad_output: Tensor, slope: float) -> Call:
        def gradient(array: Any, cotangent: Any) -> Any:
            return jax.vjp(lambda a: jax.nn.leaky_relu(a, slope), array)[1](cotangent)[0]

        function = jax.jit(gradient)
        arrays = [jax.dlpack.from_dlpack(tensor) for tensor in (x, grad_output)]
        return lambda: function(*arrays).block_until_ready()

    return Peer("JAX", f"JAX {jax.__version__} (jit)", forward, backward, torch.utils.dlpack.from_dlpack)


def _onnxruntime() -> Peer:
    import onnx.parser
    import onnxruntime as ort

    kinds = {torch.float32: "float", torch.float16: "float16", torch.bfloat16: "bfloat16"}

    def forward(x: Tensor, slope: float) -> Call:
        kind = f"{kinds[x.dtype]}[{','.join(map(str, x.shape))}]"
        graph = f"leaky_relu ({kind} x) => ({kind} y) {{ y = LeakyRelu<alpha = {slope}>(x) }}"
        model = onnx.parser.parse_model(f'<ir_version: 9, opset_import: ["" : 16]> {graph}')
        options = ort.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 4
        session = ort.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
        # Values, not arrays: or every call would copy its output. Outputs come from its arena, so they are warm.
        value = ort.OrtValue.ortvalue_from_numpy(x.numpy())
        return lambda: session.run_with_ort_values(["y"], {"x": value})[0]

    def tensor(value: Any) -> Tensor:
        return torch.from_numpy(value.numpy())

    return Peer("ONNX Runtime", f"ONNX Runtime {ort.__version__}", forward, None, tensor)


_PEERS: Mapping[str, tuple[Callable[[], Peer], tuple[str, ...]]] = {
    "JAX": (_jax, ("jax",)),
    "ONNX Runtime": (_onnxruntime, ("onnx", "onnxruntime")),
    "NumPy": (_numpy, ("numpy",)),
}


def find() -> tuple[list[Peer], dict[str, str]]:
    """Those that are installed, and of the others why not. Call it after the number of threads is set."""
    peers, absent = [], {}
    for name, (load, packages) in _PEERS.items():
        missing = [package for package in packages if util.find_spec(package) is None]
        if missing:
            absent[name] = f"not installed ({', '.join(missing)}): pip install 'leakyrelu_ext[peers]'"
            continue
        try:
            peers.append(load())
        except Exception as error:  # whatever a foreign library raises when it does not fit this machine
            versions = ", ".join(f"{package} {metadata.version(package)}" for package in packages)
            absent[name] = f"{versions} does not load: {type(error).__name__}: {error}".splitlines()[0]
    return peers, absent
