// Marks functions that the host and kernels on a GPU share; empty where there is no CUDA compiler.
#pragma once

#if defined(__CUDACC__)
#define CONVLET_HOST_DEVICE __host__ __device__
#else
#define CONVLET_HOST_DEVICE
#endif
