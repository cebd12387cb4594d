"""The words that the options of `leakyrelu-bench train` take. Needs no package: every command's parser imports it."""

from __future__ import annotations

ACTIVATIONS = ("relu", "leaky_relu", "prelu", "rrelu", "elu", "gelu", "silu", "tanh", "sigmoid")
INITIALISATIONS = ("he", "xavier", "default", "small", "negative-bias")
REGULARISATIONS = ("none", "dropout", "l2", "batch-norm")
OPTIMISERS = ("sgd", "momentum", "adagrad", "rmsprop", "adam")
SCHEDULES = ("constant", "step", "cosine")
NETWORKS = ("default", "mlp")
CLAIMS = (
    "dying-relu",
    "convergence",
    "vanishing-gradients",
    "initialisation",
    "slope",
    "regularisation",
    "optimiser",
    "domains",
    "cost",
)
DATASETS = (
    "digits",
    "mnist-5k",
    "fashion-mnist",
    "reuters-r8",
    "20-newsgroups",
    "japanese-vowels",
    "breast-cancer",
    "wine",
    "italy-power-demand",
    "osu-leaf",
    "anomaly",
)
