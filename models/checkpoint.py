"""Load a state dict file into a network, or say exactly why it does not fit."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from pickle import UnpicklingError

import torch
from torch import Tensor, nn

KEYS_SHOWN = 6


class CheckpointError(Exception):
    """A weights file that cannot be read, or does not belong to the network."""


def load_checkpoint(network: nn.Module, path: Path) -> None:
    """Load every weight and buffer of ``network`` from the state dict at ``path``; nothing missing, nothing left."""
    state = _read(path)
    own = network.state_dict()
    reshaped = [
        f"{key} (file {list(state[key].shape)}, network {list(own[key].shape)})"
        for key in own
        if key in state and state[key].shape != own[key].shape
    ]
    if reshaped:
        raise CheckpointError(f"{path}: other shapes than the network's: {_some(reshaped)}; --classes set right?")
    # strict=False reports the keys instead of raising, after torch's own upgrade of state dicts of old versions.
    found = network.load_state_dict(state, strict=False)
    problems = [
        f"{what}: {_some(keys)}"
        for what, keys in (
            ("keys missing from the file", found.missing_keys),
            ("keys unknown to the network", found.unexpected_keys),
        )
        if keys
    ]
    if problems:
        raise CheckpointError(f"{path}: not a state dict of this network; " + "; ".join(problems))


def _read(path: Path) -> Mapping[str, Tensor]:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        # torch's own message recommends weights_only=False, which would run code from the file.
        raise CheckpointError(
            f"{path}: torch.load(weights_only=True) refuses it ({type(error).__name__}): not a file of plain tensors; "
            "write it with torch.save(network.state_dict(), FILE)"
        ) from error
    if not isinstance(state, Mapping):
        raise CheckpointError(f"{path}: holds a {type(state).__name__}, expected a state dict (name to tensor)")
    strangers = [str(key) for key, value in state.items() if not isinstance(value, Tensor)]
    if strangers:
        raise CheckpointError(f"{path}: expected a state dict (name to tensor); not tensors: {_some(strangers)}")
    return state


def _some(keys: Iterable[str]) -> str:
    """The first few of ``keys``, and how many more there are."""
    keys = list(keys)
    more = len(keys) - KEYS_SHOWN
    return ", ".join(keys[:KEYS_SHOWN]) + (f" and {more} more" if more > 0 else "")
