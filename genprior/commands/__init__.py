"""The commands of the shell, one module each. They import torch only when they run."""
