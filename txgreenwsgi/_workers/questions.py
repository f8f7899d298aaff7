"""Questions to workers: their stacks, their requests in flight, their snapshots.

A worker that boots or is blocked writes its stacks in C.

It knows messages and answers. It must never know why they are asked.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.defer import Deferred

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.interfaces import IDelayedCall, IReactorTime

    from .details import WorkerDetails, WorkerSnapshot
    from .messages import Message
    from .slots import Worker

__all__ = ["STACKS_SECONDS", "Questions"]

#: Time for a process to write its stacks.
STACKS_SECONDS: Final = 1.0

#: Time for a worker to answer.
ANSWER_SECONDS: Final = 2.0


class Questions:
    """The questions of one master. Call from the reactor greenlet.

    Args:
        reactor: its clock.
    """

    def __init__(self, reactor: IReactorTime) -> None:
        self._reactor = reactor
        self._count = 0

    def details(self, worker: Worker) -> Deferred[WorkerDetails | None]:
        """Return the requests in flight of a worker that is not booting.

        Returns:
            A Deferred with None if it does not answer in time. It never fails.
        """
        return self.ask(worker, {"do": "details"})

    def snapshot(
        self, worker: Worker, known_change: int
    ) -> Deferred[WorkerSnapshot | None]:
        """Return a snapshot of a worker that is not booting.

        Args:
            worker: the worker.
            known_change: see `describe_snapshot`.

        Returns:
            A Deferred with None if it does not answer in time. It never fails.
        """
        return self.ask(worker, {"do": "snapshot", "known_change": known_change})

    def cancel(self, worker: Worker, request: str) -> Deferred[bool | None]:
        """Cancel a request of a worker that is not booting.

        Returns:
            A Deferred with whether there is such a request; None if the worker does
            not answer in time. It never fails.
        """
        return self.ask(worker, {"do": "cancel", "request": request})

    def ask(self, worker: Worker, message: Message) -> Deferred[Any]:
        """Ask a worker that is not booting.

        Args:
            worker: the worker.
            message: the question; its number is added as `question`.

        Returns:
            A Deferred with the answer (see `answered`), or with None if there is none
            in time, or the worker ends. It never fails.
        """
        self._count += 1
        question = self._count
        answer: Deferred[Any] = Deferred()
        worker.details[question] = answer
        worker.send({**message, "question": question})
        answer.addTimeout(ANSWER_SECONDS, self._reactor)
        return answer.addErrback(self._no_details, worker, question)

    @staticmethod
    def _no_details(_: object, worker: Worker, question: int) -> None:
        worker.details.pop(question, None)

    def stacks(self, worker: Worker, request: str) -> Deferred[str]:
        """Return the stacks of a worker, or those of a request.

        Returns:
            A Deferred that fails with LookupError if the worker ends.
        """
        answer: Deferred[str] = Deferred()
        self._count += 1
        question = self._count
        worker.stacks[question] = answer
        if worker.is_booting or worker.blocked:
            self._unanswered(worker, question)
            return answer
        worker.send({"do": "stacks", "question": question, "request": request})
        worker.answers.append(
            self._reactor.callLater(ANSWER_SECONDS, self._unanswered, worker, question)
        )
        return answer

    @staticmethod
    def received_stacks(worker: Worker, message: Message) -> None:
        """Handle the answer of a worker."""
        _answer(worker, message["question"], message["text"])

    @staticmethod
    def received_details(worker: Worker, message: Message) -> None:
        """Handle the answer of a worker."""
        Questions.answered(worker, message["question"], message["details"])

    @staticmethod
    def answered(worker: Worker, question: int, answer: object) -> None:
        """Pass on the answer of a worker. A no-op if it is too late."""
        waiting = worker.details.pop(question, None)
        if waiting is not None:
            waiting.callback(answer)

    @staticmethod
    def forget(worker: Worker) -> None:
        """Fail the questions to a worker that has ended."""
        worker.cancel_answers()
        for answer in worker.stacks.values():
            answer.errback(LookupError(f"{worker} has ended"))
        worker.stacks.clear()
        for details in list(worker.details.values()):
            details.cancel()

    def dump_stacks(
        self, worker: Worker, receive: Callable[[str], object]
    ) -> IDelayedCall:
        """Pass the stacks of a worker on, which may be blocked.

        Returns:
            The call, to be cancelled at the end of the process.
        """
        process = worker.process
        if process is None:  # it could not be started, and ends next
            return self._reactor.callLater(0, receive, "")
        process.begin_stacks()

        def read() -> None:
            receive(process.stacks())

        return self._reactor.callLater(STACKS_SECONDS, read)

    def _unanswered(self, worker: Worker, question: int) -> None:
        """Let a worker that does not answer write its stacks."""
        if question in worker.stacks:
            answer = partial(_answer, worker, question)
            worker.answers.append(self.dump_stacks(worker, answer))


def _answer(worker: Worker, question: int, text: str) -> None:
    answer = worker.stacks.pop(question, None)
    if answer is not None:
        answer.callback(text)
