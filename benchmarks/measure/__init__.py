"""How it is measured: clocks, contests, passes, noise, memory, the machine."""
