"""trio, and anyio on it, in the tasks of a patched program."""

from __future__ import annotations

from .test_green_programs import ProgramTestCase


class TrioTests(ProgramTestCase):
    """`trio.run` in tasks and in the main task."""

    def test_ten_runs(self) -> None:
        """Ten runs in ten threads overlap; each has its own hooks and threads."""
        said = self.output_of(
            """
            import signal
            import socket
            import subprocess
            import sys

            import anyio
            import trio

            listener = socket.create_server(("127.0.0.1", 0))
            address = listener.getsockname()[:2]
            running, most, results = 0, 0, []

            def serve():
                while True:
                    client, _ = listener.accept()
                    with client:
                        client.sendall(client.recv(10))

            async def numbers(closed):
                try:
                    for number in range(3):
                        await trio.sleep(0.05)
                        yield number
                finally:
                    closed.append(True)

            async def main():
                closed = []
                async for number in numbers(closed):
                    if number == 1:
                        break
                in_thread = await trio.to_thread.run_sync(lambda: 7)
                stream = await trio.open_tcp_stream(*address)
                async with stream:
                    await stream.send_all(b"hello")
                    echo = await stream.receive_some(10)
                process = await trio.run_process(["echo", "x"], capture_stdout=True)
                try:
                    with trio.open_signal_receiver(signal.SIGUSR1):
                        pass
                except RuntimeError:
                    refused = True
                return in_thread, echo, process.stdout, refused

            async def on_anyio():
                async with anyio.create_task_group() as group:
                    group.start_soon(anyio.sleep, 0.05)
                return await anyio.to_thread.run_sync(lambda: 8)

            def view():
                global running, most
                running += 1
                most = max(most, running)
                results.append((
                    trio.run(main),
                    anyio.run(on_anyio, backend="trio"),
                    anyio.run(on_anyio, backend="asyncio"),
                ))
                running -= 1

            threading.Thread(target=serve, daemon=True).start()
            threads = [threading.Thread(target=view) for _ in range(10)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            say(most)
            say(len(results))
            say(set(results))
            say(tuple(sys.get_asyncgen_hooks()))
            # The reactor still learns of the end of a process.
            say(subprocess.run(["echo", "y"], capture_output=True).stdout)
            """
        )
        self.assertEqual(
            said,
            [
                "parent: 10",
                "parent: 10",
                "parent: {((7, b'hello', b'x\\n', True), 8, 8)}",
                "parent: (None, None)",
                "parent: b'y\\n'",
            ],
        )

    def test_signals_in_the_main_task(self) -> None:
        """There, trio and asyncio receive signals, and Ctrl-C ends a run."""
        said = self.output_of(
            """
            import asyncio
            import signal

            import trio

            def send(number):
                threading.Timer(0.2, os.kill, (os.getpid(), number)).start()

            async def receive():
                with trio.open_signal_receiver(signal.SIGUSR1) as signals:
                    send(signal.SIGUSR1)
                    async for number in signals:
                        return signal.Signals(number).name

            async def sleep():
                send(signal.SIGINT)
                await trio.sleep(20)

            async def on_asyncio():
                received = asyncio.Event()
                loop = asyncio.get_running_loop()
                loop.add_signal_handler(signal.SIGUSR2, received.set)
                send(signal.SIGUSR2)
                await asyncio.wait_for(received.wait(), 20)
                return "SIGUSR2"

            say(trio.run(receive))
            try:
                trio.run(sleep)
            except KeyboardInterrupt:
                say("interrupted")
            say(asyncio.run(on_asyncio()))
            """
        )
        self.assertEqual(
            said, ["parent: SIGUSR1", "parent: interrupted", "parent: SIGUSR2"]
        )
