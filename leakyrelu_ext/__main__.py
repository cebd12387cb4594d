"""`python -m leakyrelu_ext`: what is installed and which kernels will run."""

from __future__ import annotations

import torch

from ._library import build_info


def main() -> None:
    info = build_info()
    for key, value in info.items():
        print(f"{key:17} {value}")
    threads = torch.get_num_threads() if info.get("openmp") else 1
    cpu = f"native, {info['cpu_tier']}, {threads} thread(s)" if info["native"] else "built-in"
    cuda = "native" if info.get("cuda") else "built-in"
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU here"
    print(f"{'kernels on CPU':17} {cpu}")
    print(f"{'kernels on CUDA':17} {cuda} ({gpu})")


if __name__ == "__main__":
    main()
