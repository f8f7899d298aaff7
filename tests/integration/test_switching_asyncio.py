"""asyncio coroutines and loops in tasks, under the asyncio reactor."""

from __future__ import annotations

import importlib.util

from .children import ChildTestCase


class AsyncioTests(ChildTestCase):
    """With the event loop of the standard library."""

    reactor = "asyncioreactor"

    def test_coroutines(self) -> None:
        """A task waits for coroutines and futures."""
        output, errors = self.run_program(
            """
            import asyncio
            from twisted.internet import reactor
            from twisted.internet.task import deferLater
            from txgreenwsgi import react, wait, TimedOut

            async def sleeper():
                try:
                    await asyncio.sleep(60)
                finally:
                    print("cancelled")

            async def both():
                await asyncio.sleep(0.01)
                return await deferLater(reactor, 0.01, str.upper, "both kinds")

            async def streams():
                async def answer(reader, writer):
                    writer.write((await reader.readline()).upper())
                    writer.close()

                server = await asyncio.start_server(answer, "127.0.0.1", 0)
                port = server.sockets[0].getsockname()[1]
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(b"streams\\n")
                line = await reader.readline()
                writer.close()
                server.close()
                return line.decode().strip()

            def main():
                print(wait(both()))
                print(wait(streams()))
                try:
                    wait(sleeper(), timeout=0.05)
                except TimedOut:
                    print("timed out")
                loop = reactor._asyncioEventloop
                future = loop.create_future()
                loop.call_later(0.01, future.set_result, "future")
                print(wait(future))
                print(wait(asyncio.sleep(0.01, "slept")))

            react(main)
            """
        )
        lines = output.splitlines()
        self.assertEqual(
            sorted(lines),
            sorted(
                [
                    "BOTH KINDS",
                    "STREAMS",
                    "timed out",
                    "cancelled",
                    "future",
                    "slept",
                ]
            ),
        )
        self.assertEqual(errors, "")

    def test_marks(self) -> None:
        """In a task no loop is running; in coroutines of the reactor its loop is."""
        output, errors = self.run_program(
            """
            import asyncio
            from twisted.internet import reactor
            from txgreenwsgi import react, sleep, spawn, suspend, wait

            def marks():
                try:
                    loop = asyncio.get_running_loop()
                except RuntimeError:
                    return None
                return loop is reactor._asyncioEventloop, asyncio.current_task()

            async def resumer(handle):
                before = marks()
                handle.resume()
                assert marks() == before
                await asyncio.sleep(0.01)
                assert marks() == before
                return before[0]

            def main():
                assert marks() is None
                sleep(0.01)
                assert marks() is None
                handle = suspend()
                running = asyncio.ensure_future(
                    resumer(handle), loop=reactor._asyncioEventloop
                )
                handle.wait()
                assert marks() is None
                print(wait(running))

                async def inside():
                    me = asyncio.current_task()
                    sleep(0.01)  # the task waits in the middle of its own loop
                    assert asyncio.current_task() is me
                    await asyncio.sleep(0.01)
                    return "a loop of its own"

                print(asyncio.run(inside()))
                tasks = [spawn(lambda: asyncio.run(inside())) for _ in range(3)]
                print([task.wait() for task in tasks])
                assert marks() is None

            react(main)
            """
        )
        self.assertEqual(
            output.splitlines(),
            ["True", "a loop of its own", str(["a loop of its own"] * 3)],
        )
        self.assertEqual(errors, "")

    def test_exit_in_a_coroutine(self) -> None:
        """A coroutine that raises SystemExit ends the wait for it, not the reactor."""
        output, _ = self.run_program(
            """
            import asyncio, sys
            from txgreenwsgi import react, sleep, wait

            async def exits():
                await asyncio.sleep(0.01)
                sys.exit(3)

            def main():
                try:
                    wait(exits())
                except SystemExit as error:
                    print("exits", error.code)
                sleep(0.01)
                print("goes on")

            react(main)
            """
        )
        self.assertEqual(output.splitlines(), ["exits 3", "goes on"])


class UvloopTests(AsyncioTests):
    """With the event loop of uvloop."""

    if importlib.util.find_spec("uvloop") is None:
        skip = "uvloop is not installed"

    def install(self) -> str:
        """Return the statements that install the reactor on a uvloop event loop."""
        return "import uvloop; chosen_reactor.install(uvloop.new_event_loop())"
