"""What the compiler meets in a stranger's model, in a line: too little memory, calls too deep, and what it did not foresee."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kcompiler.runtime.errors import KCompilerError, ModelError
from kcompiler.runtime.foreign import raise_interrupt_behind
from kcompiler.runtime.refusals import is_lack_of_memory
from kcompiler.settled import DEFECT


@contextmanager
def answered(model: Path) -> Iterator[None]:
    """Raises a :class:`ModelError` that names ``model`` for any failure inside; our own errors pass.

    The failure itself is its cause: Python shows it to whoever calls from a program.
    """
    try:
        yield
    except KCompilerError:
        raise
    except RecursionError as error:
        raise ModelError(f"{model}: its nodes follow each other too deeply ({error}); simplify the model first") from error
    except Exception as error:
        raise_interrupt_behind(error)
        if is_lack_of_memory(error):
            raise ModelError(f"{model}: takes more memory than there is ({error}); export it for smaller images") from error
        place = traceback.extract_tb(error.__traceback__)[-1]
        what = f"{model}: {type(error).__name__}: {error} ({Path(place.filename).name}, line {place.lineno})"
        raise ModelError(DEFECT.format(what)) from error
