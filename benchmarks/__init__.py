"""The `leakyrelu-bench` command: leakyrelu_ext against PyTorch's own Leaky ReLU, side by side in one process."""
