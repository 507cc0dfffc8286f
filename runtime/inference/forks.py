"""Sessions in a forked child. Only the forking thread lives on there: the threads of a session's pool do not, and a session that
is freed waits for them for ever, or ends the process. So a child keeps all that it was born with, and opens its own.
"""

from __future__ import annotations

import ctypes
import os
from typing import TYPE_CHECKING
from weakref import WeakSet

if TYPE_CHECKING:
    import onnxruntime as ort

_OPEN: WeakSet[ort.InferenceSession] = WeakSet()
"""All sessions of this process."""


def kept_by_children(session: ort.InferenceSession) -> ort.InferenceSession:
    """``session``, which no forked child will free."""
    _OPEN.add(session)
    return session


def _keep() -> None:
    for session in _OPEN:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(session))  # a reference that is never given up, not even at exit


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_keep)
