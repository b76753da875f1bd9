"""Work that is done in a thread while the caller is busy with what came before."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

T = TypeVar("T")


def prefetched(jobs: Iterator[Callable[[], T]]) -> Generator[T, None, None]:
    """Results of jobs in their order, each begun when the one before it is handed out.

    The jobs themselves are drawn in the caller's thread. An error of a job is raised where its result would have come.
    Close the generator (:func:`contextlib.closing`): its thread ends with it, after an error or Ctrl-C too, as soon as
    the job at hand is done.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="scanpy_scvi_prefetch") as pool:
        begun = (pool.submit(job) for job in jobs)
        ahead = next(begun, None)
        while ahead is not None:
            result = ahead.result()
            ahead = next(begun, None)
            yield result
            del result  # while the next is awaited, only the caller holds it
