"""Channel conversion: grey images for colour networks, and back."""

from torch import Tensor


def to_network(x: Tensor, channels: int) -> Tensor:
    """Returns images with the channels of a network; grey images are repeated.

    Arguments:
        x: Images, shape (B, C, H, W).
        channels: Channels of the network.

    Raises:
        ValueError: C is neither 1 nor `channels`.
    """
    check_channels(x.shape[1], channels)
    return x if x.shape[1] == channels else x.expand(-1, channels, -1, -1)


def from_network(x: Tensor, channels: int) -> Tensor:
    """Returns images of a network (B, C, H, W) with C channels, or with 1: their mean.

    Raises:
        ValueError: `channels` is neither 1 nor C.
    """
    check_channels(channels, x.shape[1])
    return x if x.shape[1] == channels else x.mean(dim=1, keepdim=True)


def check_channels(given: int, channels: int) -> None:
    """Checks that a network takes images with the given number of channels.

    Raises:
        ValueError: `given` is neither 1 nor `channels`, the channels of the network.
    """
    if given not in (1, channels):
        raise ValueError(
            f"this prior takes images of {channels} channel(s) or grey images, "
            f"got {given} channels: convert the image"
        )
