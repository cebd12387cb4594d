"""The training study behind `leakyrelu-bench train`: what is said of Leaky ReLU, tested on real data."""
