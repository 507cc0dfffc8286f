"""Many pictures, many machines: a folder explained by processes or on a Ray cluster, and a stage for pipelines of Ray Data.

>>> kcompiler.scale.explain_folder("model.kc", "scans", "maps", ray="auto", stride=4)
>>> ray.data.from_items(rows).map_batches(kcompiler.scale.Explain, fn_constructor_kwargs={"bundle": "model.kc"}, concurrency=8)
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kcompiler.bundle import Bundle
from kcompiler.commands.explaining import Call
from kcompiler.commands.folder import Failure
from kcompiler.commands.folder import explain_folder as explain_found
from kcompiler.commands.input_files import read_input
from kcompiler.commands.pictures import check_inputs_kept, check_output, find
from kcompiler.commands.request import PictureBox
from kcompiler.pool.crew import Opening, gathered
from kcompiler.runtime.arrays import AnyArray
from kcompiler.runtime.errors import ImageError, UsageError
from kcompiler.runtime.explanation import check_request, explained
from kcompiler.runtime.inputs.positions import make_grid
from kcompiler.runtime.maps.style import Style
from kcompiler.runtime.request import Request

__all__ = ["Explain", "Failure", "explain_folder"]

PATH, IMAGE, ERROR = "path", "image", "error"
"""Columns that a stage reads, one of the first two, and that it adds."""


def explain_folder(
    bundle: str | Path | Bundle,
    pictures: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    ray: str | None = None,
    processes: int | None = None,
    threads: int | None = None,
    providers: Sequence[str] | None = None,
    patch: int | tuple[int, int] | None = None,
    region: PictureBox | None = None,
    top: int | None = None,
    style: Style | None = None,
    resume: bool = False,
    force: bool = False,
    **settings: Any,
) -> list[Failure]:
    """Explains the pictures in folders, and goes on where one cannot be: ``kcompiler explain`` from Python, which prints as that.

    Results are written by who makes them, whole or not at all. Workers that are lost are replaced, three times over one picture.

    Args:
        bundle: path of a bundle, which all workers can read, or one just compiled.
        pictures: a folder, or several, or files.
        out: folder for the results, which mirror those of the pictures.
        ray: address of a Ray cluster: HOST:PORT, "auto" (this machine's, or one for the call) or "local" (one for the call).
            A cluster that the caller has joined is used, whatever the address.
        processes: number of processes of this machine; with ``ray``, of actors, where None fills the cluster. Processes are
            spawned, so a script calls this under ``if __name__ == "__main__"``.
        threads: CPU threads of each worker; None divides this machine's cores among processes, and gives an actor one.
        providers, patch: see :func:`kcompiler.load`.
        region: (top, left, bottom, right) in the pictures' pixels: only patches inside it.
        top: number of the largest outputs to explain, instead of one.
        style: of the overlays.
        resume: go on where a call with the same settings ended, however it did: what is complete is not made again.
        force: replace what is there.
        settings: ``stride``, ``target``, ``fill``, ``edges``, ``channel``, ``quality``, ``score`` and ``budget`` of
            :meth:`Explainer.explain`, and ``selection``.

    Returns:
        the pictures that could not be explained, and why; ``out`` lists them too.

    Raises:
        UsageError: a setting is out of its range, or ``out`` may not be written.
        BundleError: a worker cannot load the bundle.
        WorkersLost: there is no cluster, or workers are lost one after the other.
    """
    given = [pictures] if isinstance(pictures, (str, Path)) else pictures
    found = find([Path(each) for each in given], Path(out))
    check_output(found.jobs, Path(out), replace=force or resume)
    if force or resume:
        check_inputs_kept(found.jobs)
    with gathered(_opening(bundle, providers, threads, patch), ray=ray, processes=processes) as crew:
        explainer = _opening(bundle, providers, threads, patch).load() if crew is None else crew.load()
        call = Call(explainer, Request(**settings), region, style or Style(), top, resume, force)
        return explain_found(call, found, Path(out), crew)


class Explain:
    """A stage for ``map_batches``: explains the pictures of a batch, and adds their maps as columns. A picture may fail.

    Reads the column "path" (picture files that each worker can read) or "image" (preprocessed arrays, as
    :meth:`Explainer.explain` takes them). Adds "scores", float32 [rows, cols], "unoccluded", "target", "label" and "error", which
    is "" where all is well; of a picture that could not be explained, scores are NaN and the target is -1.
    """

    def __init__(
        self,
        bundle: str | Path,
        *,
        threads: int | None = 1,
        providers: Sequence[str] | None = ("cpu",),
        patch: int | tuple[int, int] | None = None,
        **settings: Any,
    ) -> None:
        """Loads the bundle, once a worker. The arguments are those of :func:`explain_folder`.

        Raises:
            UsageError: a setting is out of its range.
            BundleError: not an intact bundle.
        """
        self._explainer = _opening(bundle, providers, threads, patch).load()
        self._request = Request(**settings)
        check_request(self._explainer, self._request)
        manifest, request = self._explainer.manifest, self._request
        self._shape = make_grid(manifest.shape[1:], manifest.patch, request.stride, request.region, request.edges).shape

    def __call__(self, batch: dict[str, AnyArray]) -> dict[str, AnyArray]:
        column = next((name for name in (PATH, IMAGE) if name in batch), None)
        if column is None:
            raise UsageError(f"the batch has the columns {', '.join(batch)}, expected {PATH!r} or {IMAGE!r}")
        rows = [self._row(column, value) for value in batch[column]]
        added = {name: np.stack([row[name] for row in rows]) for name in rows[0]} if rows else {}
        return {**{name: values for name, values in batch.items() if name != IMAGE}, **added}

    def _row(self, column: str, value: Any) -> dict[str, Any]:
        try:
            image = read_input(self._explainer, Path(value), self._request.selection) if column == PATH else np.asarray(value)
            heat_map = explained(self._explainer, image, self._request)
        except (ImageError, UsageError, OSError) as error:
            return _columns(np.full(self._shape, np.nan, np.float32), np.nan, -1, "", str(error))
        return _columns(heat_map.scores, heat_map.unoccluded, heat_map.target, heat_map.label, "")


def _columns(scores: AnyArray, unoccluded: float, target: int, label: str, error: str) -> dict[str, Any]:
    return {"scores": scores, "unoccluded": np.float32(unoccluded), "target": target, "label": label, ERROR: error}


def _opening(
    bundle: str | Path | Bundle, providers: Sequence[str] | None, threads: int | None, patch: int | tuple[int, int] | None
) -> Opening:
    folder = Path(bundle) if isinstance(bundle, (str, Path)) else bundle.folder
    sides = (patch, patch) if isinstance(patch, int) else patch
    return Opening(folder, None if providers is None else tuple(providers), threads, sides)
