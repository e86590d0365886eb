import torch

from genprior.operators.masks import grown


def test_holes_grow_by_a_distance_on_all_sides() -> None:
    keep = torch.rand(2, 1, 17, 23, generator=torch.Generator().manual_seed(0)) > 0.02
    keep[1] = True  # an image without a hole stays as it is
    place = torch.cartesian_prod(torch.arange(17), torch.arange(23)).double()
    for distance in (0, 1, 3):
        for mask, found in zip(keep, grown(keep, distance), strict=True):
            missing = place[~mask.flatten()]
            near = (torch.cdist(place, missing) <= distance).any(dim=1)
            assert torch.equal(found.flatten(), ~near)
