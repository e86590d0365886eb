"""
The minimax loss of the generator, and the better one
=====================================================

Goodfellow et al. (2014) give two losses for the generator: (1) min log(1 - D(G(z))), the minimax
game, and (2) max log D(G(z)). Both have the same fixed point. While the discriminator recognises
the generated images, D(G(z)) is near 0, and the gradient of (1) vanishes there.
"""

import matplotlib.pyplot as plt
import torch

figure, ax = plt.subplots(figsize=(5, 3), layout="constrained")
logit = torch.linspace(-8, 4, 200)
ax.plot(torch.sigmoid(logit), torch.sigmoid(logit), label="(1) minimax")
ax.plot(torch.sigmoid(logit), 1 - torch.sigmoid(logit), label="(2) non-saturating")
ax.set(xlabel="D(G(z))", ylabel="size of the gradient to the logit")
ax.legend()
plt.show()

# %%
# In the shell: ``genprior train gan DATA -o run --steps 2000 --set loss=minimax``; without
# ``--set loss=...`` it is (2).
