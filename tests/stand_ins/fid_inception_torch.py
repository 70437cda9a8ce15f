"""The Inception v3 of FID in torch, for comparison: its blocks, pooling and tensor names.

It is written from the description in pytorch-fid (mseitzer, Apache-2.0) of how TensorFlow's network
of 2015-12-05 differs from torchvision's. pytorch-fid itself needs torchvision.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional


class Normalised(nn.Module):
    """A convolution, batch normalisation and ReLU."""

    def __init__(self, before: int, after: int, size: Any = 1, stride: int = 1, padding: Any = 0):
        super().__init__()
        self.conv = nn.Conv2d(before, after, size, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(after, eps=0.001)

    def forward(self, x):
        return functional.relu(self.bn(self.conv(x)))


def mean_pool(x):
    return functional.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)


def max_pool(x):
    return functional.max_pool2d(x, 3, stride=1, padding=1)


def half(x):
    return functional.max_pool2d(x, 3, stride=2)


class A(nn.Module):
    """35 x 35: one 1 x 1, one 5 x 5, two 3 x 3 and a pool."""

    def __init__(self, before: int, pooled: int):
        super().__init__()
        self.branch1x1 = Normalised(before, 64)
        self.branch5x5_1 = Normalised(before, 48)
        self.branch5x5_2 = Normalised(48, 64, 5, padding=2)
        self.branch3x3dbl_1 = Normalised(before, 64)
        self.branch3x3dbl_2 = Normalised(64, 96, 3, padding=1)
        self.branch3x3dbl_3 = Normalised(96, 96, 3, padding=1)
        self.branch_pool = Normalised(before, pooled)

    def forward(self, x):
        five = self.branch5x5_2(self.branch5x5_1(x))
        three = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch1x1(x), five, three, self.branch_pool(mean_pool(x))], 1)


class B(nn.Module):
    """From 35 x 35 to 17 x 17."""

    def __init__(self, before: int):
        super().__init__()
        self.branch3x3 = Normalised(before, 384, 3, 2)
        self.branch3x3dbl_1 = Normalised(before, 64)
        self.branch3x3dbl_2 = Normalised(64, 96, 3, padding=1)
        self.branch3x3dbl_3 = Normalised(96, 96, 3, 2)

    def forward(self, x):
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch3x3(x), double, half(x)], 1)


class C(nn.Module):
    """17 x 17: factorised 7 x 7 convolutions."""

    def __init__(self, before: int, width: int):
        super().__init__()
        row, column = {"size": (1, 7), "padding": (0, 3)}, {"size": (7, 1), "padding": (3, 0)}
        self.branch1x1 = Normalised(before, 192)
        self.branch7x7_1 = Normalised(before, width)
        self.branch7x7_2 = Normalised(width, width, **row)
        self.branch7x7_3 = Normalised(width, 192, **column)
        self.branch7x7dbl_1 = Normalised(before, width)
        self.branch7x7dbl_2 = Normalised(width, width, **column)
        self.branch7x7dbl_3 = Normalised(width, width, **row)
        self.branch7x7dbl_4 = Normalised(width, width, **column)
        self.branch7x7dbl_5 = Normalised(width, 192, **row)
        self.branch_pool = Normalised(before, 192)

    def forward(self, x):
        seven = self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x)))
        double = x
        for number in range(1, 6):
            double = getattr(self, f"branch7x7dbl_{number}")(double)
        return torch.cat([self.branch1x1(x), seven, double, self.branch_pool(mean_pool(x))], 1)


class D(nn.Module):
    """From 17 x 17 to 8 x 8."""

    def __init__(self, before: int):
        super().__init__()
        self.branch3x3_1 = Normalised(before, 192)
        self.branch3x3_2 = Normalised(192, 320, 3, 2)
        self.branch7x7x3_1 = Normalised(before, 192)
        self.branch7x7x3_2 = Normalised(192, 192, (1, 7), padding=(0, 3))
        self.branch7x7x3_3 = Normalised(192, 192, (7, 1), padding=(3, 0))
        self.branch7x7x3_4 = Normalised(192, 192, 3, 2)

    def forward(self, x):
        seven = x
        for number in range(1, 5):
            seven = getattr(self, f"branch7x7x3_{number}")(seven)
        return torch.cat([self.branch3x3_2(self.branch3x3_1(x)), seven, half(x)], 1)


class E(nn.Module):
    """8 x 8: 3 x 3 convolutions as rows beside columns."""

    def __init__(self, before: int, pool: Any):
        super().__init__()
        self.pool = pool
        row, column = {"size": (1, 3), "padding": (0, 1)}, {"size": (3, 1), "padding": (1, 0)}
        self.branch1x1 = Normalised(before, 320)
        self.branch3x3_1 = Normalised(before, 384)
        self.branch3x3_2a = Normalised(384, 384, **row)
        self.branch3x3_2b = Normalised(384, 384, **column)
        self.branch3x3dbl_1 = Normalised(before, 448)
        self.branch3x3dbl_2 = Normalised(448, 384, 3, padding=1)
        self.branch3x3dbl_3a = Normalised(384, 384, **row)
        self.branch3x3dbl_3b = Normalised(384, 384, **column)
        self.branch_pool = Normalised(before, 192)

    def forward(self, x):
        single = self.branch3x3_1(x)
        double = self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        outputs = [
            self.branch1x1(x),
            self.branch3x3_2a(single),
            self.branch3x3_2b(single),
            self.branch3x3dbl_3a(double),
            self.branch3x3dbl_3b(double),
            self.branch_pool(self.pool(x)),
        ]
        return torch.cat(outputs, 1)


class FidInception(nn.Module):
    """The whole network, with the classifier that the published files contain."""

    def __init__(self):
        super().__init__()
        self.Conv2d_1a_3x3 = Normalised(3, 32, 3, 2)
        self.Conv2d_2a_3x3 = Normalised(32, 32, 3)
        self.Conv2d_2b_3x3 = Normalised(32, 64, 3, padding=1)
        self.Conv2d_3b_1x1 = Normalised(64, 80)
        self.Conv2d_4a_3x3 = Normalised(80, 192, 3)
        self.Mixed_5b, self.Mixed_5c, self.Mixed_5d = A(192, 32), A(256, 64), A(288, 64)
        self.Mixed_6a = B(288)
        self.Mixed_6b, self.Mixed_6c = C(768, 128), C(768, 160)
        self.Mixed_6d, self.Mixed_6e = C(768, 160), C(768, 192)
        self.Mixed_7a = D(768)
        self.Mixed_7b, self.Mixed_7c = E(1280, mean_pool), E(2048, max_pool)
        self.fc = nn.Linear(2048, 1008)

    def forward(self, x):
        """Returns 2048 features of pictures [b 3 299 299] in [0, 255]."""
        x = (x - 128) / 128
        x = half(self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x))))
        x = half(self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(x)))
        for name, block in self.named_children():
            if name.startswith("Mixed"):
                x = block(x)
        return x.mean((2, 3))


def random_inception(seed: int = 0) -> FidInception:
    """Returns a network with random weights and statistics, whose activations stay near 1."""
    torch.manual_seed(seed)
    network = FidInception().eval()
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)
            if isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(0, 0.3)
                module.running_mean.normal_(0, 0.3)
                module.running_var.uniform_(0.5, 1.5)
    return network


class Layer(nn.Module):
    """A convolution with the tensor names of nvlabs' TorchScript, without scales."""

    def __init__(self, source: Normalised):
        super().__init__()
        self.weight = nn.Parameter(source.conv.weight.detach().clone())
        self.beta = nn.Parameter(source.bn.bias.detach().clone())
        self.mean = nn.Parameter(source.bn.running_mean.clone())
        self.var = nn.Parameter(source.bn.running_var.clone())

    def forward(self, x):
        return x


class Names(nn.Module):
    """A module with named children and no function."""

    def forward(self, x):
        return x


def scripted(network: FidInception, names: dict[str, str]):
    """Returns a TorchScript with the weights of `network`, whose layers have the names of `names`.

    `names` maps pytorch-fid's path of a convolution to the TorchScript's.
    """
    root = Names()
    for theirs, path in names.items():
        node = root
        *parents, last = path.split(".")
        for parent in parents:
            if not hasattr(node, parent):
                node.add_module(parent, Names())
            node = getattr(node, parent)
        node.add_module(last, Layer(network.get_submodule(theirs)))
    root.add_module("output", network.fc)
    return torch.jit.script(root)
