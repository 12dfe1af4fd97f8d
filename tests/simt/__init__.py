"""The emulator that runs the CUDA kernels on the CPU, for Python: see README.md."""
