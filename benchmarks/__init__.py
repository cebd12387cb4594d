"""The `leakyrelu-bench` command: leakyrelu_ext against PyTorch's own Leaky ReLU and other rivals, side by side."""
