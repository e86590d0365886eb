"""Forward operators y = A x, each with adjoint, pseudo-inverse and proximal map."""
