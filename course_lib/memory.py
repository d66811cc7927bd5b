"""Memory of the process, where its speed depends on it."""

import ctypes

# Parameters of glibc's mallopt, from <malloc.h>.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3


def keep_freed_memory() -> None:
    """Let the process keep what it frees, for the next allocation to use.

    A training step on the CPU frees all its activations and asks for the same memory again in the
    next step. The C library of Linux returns large pieces to the system in between, which then clears
    every page anew. In interleaved runs a PixelCNN's step on MNIST took 0.7 of its time with this;
    multilayer perceptrons and models of the digits took as long as before. Elsewhere, and where another
    allocator is loaded, nothing happens. At most 1 GiB is kept at the top of the heap.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # not glibc
        return
    mallopt(M_TRIM_THRESHOLD, 1 << 30)
    mallopt(M_MMAP_THRESHOLD, 32 << 20)  # the largest that glibc accepts
