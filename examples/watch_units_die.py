"""ReLU units die at a high learning rate, Leaky ReLU's keep a gradient: an ActivationMonitor counts them.

Trains the same perceptron twice on scikit-learn's digits, with ReLU and with Leaky ReLU. Then prints how many units get no
gradient from any sample, and the monitor's table.
"""

import torch
from sklearn.datasets import load_digits
from torch import nn

import leakyrelu_ext
from leakyrelu_ext.diagnostics import ActivationMonitor

LAYERS, WIDTH, LEARNING_RATE, STEPS, BATCH = 5, 64, 0.1, 300, 64

torch.set_num_threads(1)  # the network is small: threads would mostly wait
digits = load_digits()
images, labels = torch.tensor(digits.data, dtype=torch.float32) / 16, torch.tensor(digits.target)


def perceptron(activation: type[nn.Module]) -> nn.Sequential:
    torch.manual_seed(0)
    layers = [layer for _ in range(LAYERS) for layer in (nn.Linear(WIDTH, WIDTH), activation())]
    net = nn.Sequential(*layers, nn.Linear(WIDTH, 10))
    leakyrelu_ext.init.init_for_leaky_relu_(net, example=images[:2])
    return net


def train(net: nn.Module) -> None:
    torch.manual_seed(1)
    optimiser = torch.optim.SGD(net.parameters(), LEARNING_RATE, momentum=0.9)
    for _ in range(STEPS):
        batch = torch.randint(len(images), (BATCH,))
        optimiser.zero_grad()
        nn.functional.cross_entropy(net(images[batch]), labels[batch]).backward()
        optimiser.step()


for name, activation in (("ReLU", nn.ReLU), ("LeakyReLU", leakyrelu_ext.LeakyReLU)):
    net = perceptron(activation)
    train(net)
    with ActivationMonitor(net) as monitor:  # of the trained network, over all samples
        nn.functional.cross_entropy(net(images), labels).backward()
    accuracy = (net(images).argmax(1) == labels).float().mean().item()
    still = sum(layer["zero_gradient_units"] for layer in monitor.to_dict()["layers"])
    print(f"{name}: {still} of {LAYERS * WIDTH} units without a gradient, accuracy {accuracy:.1%}")
    print(monitor.summary(), end="\n\n")
