"""Gradients of many parameters together: their norm, clipping, and which ones are not finite."""

from collections.abc import Collection

import torch
from torch import Tensor, nn

from bench.measuring import meter
from bench.processes.world import World
from optimizers.routing import Routing
from optimizers.sharding.regions import local, mesh_of

CLIP_EPS = 1e-6  # torch's clipping adds this to the norm that it divides by


def clipped(routing: Routing, part: str | None) -> set[str]:
    """The roles whose gradients `clip` scales, for `train.clip_part`.

    Raises ValueError if there are none.
    """
    found = set(routing.roles) if part is None else routing.auxiliary()
    if not found:
        raise ValueError(f"train.clip_part={part}: no parameter is in it, all are Muon's")
    return found


def norm(parameters: list[nn.Parameter], world: World) -> Tensor:
    """The 2-norm of these gradients; sparse ones are coalesced first: a token counts once."""
    for p in parameters:
        if p.grad is not None and p.grad.is_sparse:
            p.grad = p.grad.coalesce()  # merge a token's positions into one row
    grads = [p.grad for p in parameters if p.grad is not None]
    if world.mesh is None:
        return nn.utils.get_total_norm([numbers(grad) for grad in grads])
    # Each process adds its own parts; parts that several processes hold are counted several times.
    squares = sum(
        (local(grad).double().square().sum() / world.holders(grad) for grad in grads),
        start=torch.zeros((), dtype=torch.float64),
    )
    (mean,) = world.means(squares.item())
    return torch.tensor(mean * world.size, device=local(grads[0]).device).sqrt().float()


def by_role(
    roles: dict[str, list[Tensor]],
    clipped: Collection[str],
    most: float | None,
    norm: Tensor,
    world: World,
) -> dict[str, float]:
    """The 2-norm of each role's gradients before `clip`.

    clipped: the roles that it scaled; norm: that of their gradients at that time.
    """
    grads = {
        role: [numbers(p.grad) for p in members if p.grad is not None]
        for role, members in roles.items()
    }
    clipped_by = 1.0 if most is None else max(1.0, (norm.item() + CLIP_EPS) / most)
    there = {role: found for role, found in grads.items() if found}
    return {
        role: value * (clipped_by if role in clipped else 1.0)
        for role, value in meter.norms(there, world).items()
    }


def clip(parameters: list[nn.Parameter], most: float, norm: Tensor) -> None:
    """Scale these gradients to a total norm of at most `most`, as torch's clip_grads_with_norm_.

    torch's function refuses a list that mixes shards and whole tensors.
    """
    of_mesh: dict[object, list[nn.Parameter]] = {}
    for p in parameters:
        of_mesh.setdefault(mesh_of(p), []).append(p)
    for same in of_mesh.values():
        nn.utils.clip_grads_with_norm_(same, most, norm)


def numbers(grad: Tensor) -> Tensor:
    """The gradient; for a sparse one its rows, because torch's norm rejects sparse tensors."""
    return grad.coalesce().values() if grad.is_sparse else grad  # clipping loses the coalesced flag


def not_finite(model: nn.Module) -> str:
    """Names of parameters whose gradients have a NaN or infinity, nearest to the loss first.

    The backward pass spreads them from their origin towards the input. Call it before clipping,
    which spreads them to all gradients.
    """
    broken = [
        name
        for name, p in model.named_parameters()
        if p.grad is not None and not torch.isfinite(numbers(local(p.grad))).all()
    ]
    more = f" and {len(broken) - 1} before it" if len(broken) > 1 else ""
    return f"not finite in {broken[-1]}{more}" if broken else "each is finite by itself"
