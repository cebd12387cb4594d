"""GAT as trained on Cora: attention over the edges of a graph, its scores through Leaky ReLU 0.2.

Veličković, Cucurull, Casanova, Romero, Liò, Bengio: Graph Attention Networks, ICLR 2018: 8 heads of 8 features, ELU, one
head of 7 classes; dropout 0.6 of both layers' inputs and of the attention. Edges are a list, as in PyTorch Geometric, not
the dense matrix of the authors' code. On CUDA index_add sums in no fixed order: there, no two steps need give the same bits.

Parameters: 92,373, with a bias per output feature.
Published: no count in the paper; 92,373 is what tutorials print of a Keras GAT on Cora, and what PyTorch Geometric's GATConv
comes to. The authors' TensorFlow code has 92,391: it also gives each half of a score a bias, two more scalars per head.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

NODES, EDGES, FEATURES, CLASSES = 2708, 5278, 1433, 7  # Cora's; the edges are undirected
_WORDS = 18  # of FEATURES that a paper has, on average


class GraphAttention(nn.Module):
    def __init__(self, features: int, heads: int, to: int, dropout: float) -> None:
        super().__init__()
        self.project = nn.Linear(features, heads * to, bias=False)
        self.source = nn.Parameter(torch.empty(heads, to))
        self.target = nn.Parameter(torch.empty(heads, to))
        self.bias = nn.Parameter(torch.zeros(heads * to))
        self.activation = nn.LeakyReLU(0.2)
        self.dropout = nn.Dropout(dropout)
        for weight in (self.project.weight, self.source, self.target):
            nn.init.xavier_uniform_(weight)

    def forward(self, x: Tensor, edges: Tensor) -> Tensor:
        """``edges``: [2, edges], source and target nodes, a self loop at every node among them."""
        source, target = edges
        h: Tensor = self.project(self.dropout(x)).unflatten(1, self.source.shape)
        halves = (h * self.source).sum(2).index_select(0, source), (h * self.target).sum(2).index_select(0, target)
        attention = self.dropout(_softmax(self.activation(halves[0] + halves[1]), target, len(x)))
        messages = attention[:, :, None] * h.index_select(0, source)
        return torch.zeros_like(h).index_add(0, target, messages).flatten(1) + self.bias


def _softmax(scores: Tensor, target: Tensor, nodes: int) -> Tensor:
    """Softmax over the edges that share a target."""
    # index_select, not indexing: that one's backward sums in no fixed order on the CPU either
    index = target[:, None].expand_as(scores)
    highest = scores.new_zeros(nodes, scores.shape[1]).scatter_reduce(0, index, scores.detach(), "amax", include_self=False)
    powers = (scores - highest.index_select(0, target)).exp()
    return powers / torch.zeros_like(highest).index_add(0, target, powers).index_select(0, target)


class GAT(nn.Module):
    def __init__(self, dropout: float = 0.6) -> None:
        super().__init__()
        self.hidden = GraphAttention(FEATURES, 8, 8, dropout)
        self.output = GraphAttention(64, 1, CLASSES, dropout)

    def forward(self, x: Tensor, edges: Tensor) -> Tensor:
        logits: Tensor = self.output(F.elu(self.hidden(x, edges)), edges)
        return logits


def random_graphs(count: int, generator: torch.Generator, scale: float = 1.0) -> tuple[Tensor, Tensor]:
    """Graphs of Cora's size (``scale`` of its nodes and edges) with uniformly random edges and words, as one disjoint union.

    Returns what GAT takes: features, rows adding up to 1 as in the authors' code, and edges, both ways, with self loops.
    """
    nodes, edges = round(NODES * scale), round(EDGES * scale)
    pairs = torch.triu_indices(nodes, nodes, 1)
    unions = []
    for copy in range(count):
        drawn = pairs[:, torch.randperm(pairs.shape[1], generator=generator)[:edges]]
        loops = torch.arange(nodes).expand(2, -1)
        unions.append(torch.cat([drawn, drawn.flip(0), loops], 1) + copy * nodes)
    words = torch.rand(count * nodes, FEATURES, generator=generator).topk(_WORDS).indices
    features = torch.zeros(count * nodes, FEATURES).scatter_(1, words, 1 / _WORDS)
    return features, torch.cat(unions, 1)
