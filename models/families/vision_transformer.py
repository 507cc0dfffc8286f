"""ViT-B/16 (Dosovitskiy, Beyer, Kolesnikov, Weissenborn, Zhai, Unterthiner, Dehghani, Minderer, Heigold, Gelly, ..., 2021)."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.families.layers import accept_old_names, attend, perceptron

PATCH = 16
"""Rows and columns of a patch, in pixels; each patch is a token."""

GRID = 14
"""Rows and columns of the patches that positions are learnt for: an image of 224 pixels."""

CHANNELS, HIDDEN, HEADS, BLOCKS = 768, 3072, 12, 12
EPSILON = 1e-6

OLD_NAMES = {r"\.mlp\.linear_1\.": ".mlp.0.", r"\.mlp\.linear_2\.": ".mlp.3."}
"""The entries' names in torchvision's published file, which is older than its module names."""


class ViTB16(nn.Module):
    """Image [N, 3, H, W] to logits [N, num_classes]; 224 pixels in the paper, elsewhere positions are interpolated."""

    def __init__(self, num_classes: int = 1000) -> None:
        super().__init__()
        self.class_token = nn.Parameter(torch.zeros(1, 1, CHANNELS))
        self.conv_proj = nn.Conv2d(3, CHANNELS, kernel_size=PATCH, stride=PATCH)
        self.encoder = Encoder()
        self.heads = nn.Sequential()
        self.heads.add_module("head", nn.Linear(CHANNELS, num_classes))
        accept_old_names(self, OLD_NAMES)

    def forward(self, image: Tensor) -> Tensor:
        """Logits [N, num_classes]."""
        patches = self.conv_proj(image)
        rows, columns = (int(size) for size in patches.shape[-2:])
        tokens = patches.flatten(2).transpose(1, 2)
        first = self.class_token.expand(tokens.shape[0], -1, -1)
        logits: Tensor = self.heads(self.encoder(torch.cat([first, tokens], dim=1), rows, columns)[:, 0])
        return logits


class Encoder(nn.Module):
    """Adds positions to the tokens and runs the blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.pos_embedding = nn.Parameter(torch.empty(1, 1 + GRID * GRID, CHANNELS).normal_(std=0.02))
        self.layers = nn.Sequential()
        for number in range(BLOCKS):
            self.layers.add_module(f"encoder_layer_{number}", Block())
        self.ln = nn.LayerNorm(CHANNELS, EPSILON)

    def forward(self, tokens: Tensor, rows: int, columns: int) -> Tensor:
        """Tokens [N, 1 + rows * columns, channels] to the same shape; the first is the class token."""
        encoded: Tensor = self.ln(self.layers(tokens + self._positions(rows, columns)))
        return encoded

    def _positions(self, rows: int, columns: int) -> Tensor:
        if (rows, columns) == (GRID, GRID):
            return self.pos_embedding
        grid = self.pos_embedding[:, 1:].transpose(1, 2).reshape(1, CHANNELS, GRID, GRID)
        resized = functional.interpolate(grid, size=(rows, columns), mode="bilinear")
        return torch.cat([self.pos_embedding[:, :1], resized.flatten(2).transpose(1, 2)], dim=1)


class Block(nn.Module):
    """Self-attention and two linear layers, each behind its normalisation and around a shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(CHANNELS, EPSILON)
        self.self_attention = SelfAttention()
        self.ln_2 = nn.LayerNorm(CHANNELS, EPSILON)
        self.mlp = perceptron(CHANNELS, HIDDEN)

    def forward(self, tokens: Tensor) -> Tensor:
        """[N, tokens, channels] to the same shape."""
        tokens = tokens + self.self_attention(self.ln_1(tokens))
        residual: Tensor = self.mlp(self.ln_2(tokens))
        return tokens + residual


class SelfAttention(nn.Module):
    """torch's multi-head attention of tokens to themselves, name by name, without its many cases."""

    def __init__(self) -> None:
        super().__init__()
        self.in_proj_weight = nn.Parameter(torch.empty(3 * CHANNELS, CHANNELS))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * CHANNELS))
        self.out_proj = nn.Linear(CHANNELS, CHANNELS)
        nn.init.xavier_uniform_(self.in_proj_weight)

    def forward(self, tokens: Tensor) -> Tensor:
        """[N, tokens, channels] to the same shape."""
        projected: Tensor = self.out_proj(attend(functional.linear(tokens, self.in_proj_weight, self.in_proj_bias), HEADS))
        return projected
