"""Grey images through networks for colour."""

from torch import Tensor


def to_network(x: Tensor, channels: int) -> Tensor:
    """Images with the channels of a network; grey ones are repeated.

    Arguments:
        x: Images, shape (B, C, H, W).
        channels: Channels of the network.

    Raises:
        ValueError: C is neither 1 nor `channels`.
    """
    check_channels(x.shape[1], channels)
    return x if x.shape[1] == channels else x.expand(-1, channels, -1, -1)


def from_network(x: Tensor, channels: int) -> Tensor:
    """Images of a network (B, C, H, W) with `channels` channels: C, or 1, their mean.

    Raises:
        ValueError: `channels` is neither 1 nor C.
    """
    check_channels(channels, x.shape[1])
    return x if x.shape[1] == channels else x.mean(dim=1, keepdim=True)


def check_channels(given: int, channels: int) -> None:
    """Refuses images that a network does not take.

    Raises:
        ValueError: `given` channels are neither 1 nor `channels`, those of the network.
    """
    if given not in (1, channels):
        raise ValueError(
            f"this prior is of images of {channels} channel(s) and takes those or grey ones, "
            f"got {given} channels: convert the image"
        )
