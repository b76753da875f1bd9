import torch

from scanpy_scvi.modules.encoders.moments import VAR_FLOOR, posterior_moments
from scanpy_scvi.modules.mlp import CovariateLinear


def test_equals_two_maps_with_their_gradients():
    torch.manual_seed(0)
    maps, slopes = (CovariateLinear(7, 3), CovariateLinear(7, 3)), torch.randn(2, 11, 3)
    gradients = []
    for fused in (True, False):
        h = torch.randn(11, 7, generator=torch.Generator().manual_seed(1)).requires_grad_()
        if fused:
            mean, var = posterior_moments(h, *maps)
        else:
            mean, var = maps[0](h), maps[1](h).exp() + VAR_FLOOR
        torch.autograd.backward([mean, var], list(slopes))
        gradients.append([mean.detach(), var.detach(), h.grad, *(p.grad.clone() for m in maps for p in m.parameters())])
        for m in maps:
            m.zero_grad()
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
