"""Use convlet's kernels on torch tensors: nothing is copied, and gradients can be compared.

Images are N,H,W,C and weights R,S,C,K here; torch's own convolution wants N,C,H,W and K,C,R,S.
"""

import torch

from convlet import ops

torch.manual_seed(0)
x = torch.randn(8, 32, 32, 3)
weight = torch.randn(3, 3, 3, 16, requires_grad=True)
bias = torch.randn(16)

y = ops.conv2d(x, weight.detach(), bias, padding=1, activation="relu")
print(type(y).__name__, tuple(y.shape))  # a torch tensor again

reference = torch.nn.functional.conv2d(
    x.permute(0, 3, 1, 2), weight.permute(3, 2, 0, 1), bias, padding=1
)
reference = reference.relu().permute(0, 2, 3, 1)
print(f"largest difference from torch, forward:  {(y - reference).abs().max():.1e}")

dy = torch.randn(y.shape)
reference.backward(dy)
dw = ops.conv2d_backward_weight(dy * (y > 0), x, (3, 3), padding=1)
largest = (dw - weight.grad).abs().max() / weight.grad.abs().max()
print(f"largest difference from torch, gradient: {largest:.1e} of the largest value")
