"""Work in other processes and in threads of long ago is not seen, and that is told."""

import asyncio
import concurrent.futures
import multiprocessing
import multiprocessing.pool
import os
import platform
import subprocess
import sys
import threading
from multiprocessing.process import BaseProcess

import pytest
import torch

from pytest_nnscale.counting.counter import Count, Counter

fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # threads and fork


def counted(run) -> Count:
    with Counter() as counter:
        run()
    return counter.count()


def multiply():
    return torch.ones(2, 2) @ torch.ones(2, 2)


def test_work_for_a_warm_thread_pool_is_reported():
    """A worker that was started before the block is seen when it is given work with torch."""
    with concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="warm") as pool:
        pool.submit(threading.get_ident).result()
        assert counted(lambda: pool.submit(multiply).result()).threads == ("warm_0",)
        assert counted(lambda: pool.submit(threading.get_ident).result()).threads == ()


def test_work_for_a_warm_pool_of_multiprocessing_threads_is_reported():
    """multiprocessing.pool.ThreadPool has workers of its own."""
    with multiprocessing.pool.ThreadPool(1) as pool:
        pool.apply(threading.get_ident)
        count = counted(lambda: pool.map(lambda _: multiply(), [0]))
        assert (len(count.threads), count.processes) == (1, ())


def test_work_for_a_warm_worker_of_asyncio_is_reported():
    """asyncio.to_thread reuses a worker that an earlier call started."""

    async def both():
        await asyncio.to_thread(threading.get_ident)
        with Counter() as counter:
            await asyncio.to_thread(multiply)
        return counter.count()

    assert len(asyncio.run(both()).threads) == 1


def test_result_and_error_of_a_watched_worker_are_its_own():
    """What is submitted under a counter returns and raises what it did, after the block too."""
    gate = threading.Event()

    def late():
        gate.wait(10)
        return multiply()

    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        with Counter() as counter:
            failing = pool.submit(int, "x")
            future = pool.submit(late)
        gate.set()
        assert future.result(10)[0, 0] == 2
        with pytest.raises(ValueError, match="invalid literal"):
            failing.result(10)
    assert counter.count().threads == ()


@fork
def test_process_is_reported():
    """A process of multiprocessing goes by its name, and its fork is not told again."""

    def run():
        process = multiprocessing.get_context("fork").Process(target=int, name="worker")
        process.start()
        process.join()

    assert counted(run).processes == ("worker",)


@fork
def test_bare_fork_is_reported():
    """What a child of os.fork does is not seen."""

    def run():
        child = os.fork()
        if child == 0:
            os._exit(0)
        os.waitpid(child, 0)

    assert counted(run).processes == ("os.fork",)


@fork
def test_work_for_a_warm_process_pool_is_reported():
    """Workers that were started before the block are given work inside."""
    context = multiprocessing.get_context("fork")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
        pool.submit(int).result()
        count = counted(lambda: pool.submit(int).result())
        assert count.processes == ("ProcessPoolExecutor",)
    with context.Pool(1) as pool:
        assert counted(lambda: pool.map(int, ["1"])).processes == ("Pool",)


@pytest.mark.parametrize(
    ("command", "options"),
    [
        ([sys.executable, "-c", ""], {}),
        (f"{sys.executable} -c ''", {"shell": True}),
        (["sh", "-c", "python3 -c '' || true"], {}),
        (["nonsense", "-c", ""], {"executable": sys.executable}),
    ],
)
def test_command_that_runs_python_is_reported(command, options):
    """A subprocess that is Python may run the model; a shell may start one."""
    count = counted(lambda: subprocess.run(command, check=True, **options))
    assert count.processes == ("python",)


def test_other_commands_are_none_of_our_business():
    """Compilers and questions to the system do not spoil a count."""

    def run():
        subprocess.run(["true"], check=True)
        subprocess.run(["echo", "/opt/python-stubs/x"], check=True, stdout=subprocess.DEVNULL)
        platform.architecture()  # asks `file` about the interpreter

    assert counted(run).processes == ()


def test_nothing_of_the_watch_stays_behind():
    """What was replaced during a count is put back, also where the block raised."""
    watched = [
        (threading.Thread, "start"),
        (concurrent.futures.ThreadPoolExecutor, "submit"),
        (concurrent.futures.ProcessPoolExecutor, "submit"),
        (multiprocessing.pool.Pool, "_map_async"),
        (BaseProcess, "start"),
        (subprocess.Popen, "__init__"),
        *([(os, "fork")] if hasattr(os, "fork") else []),
    ]
    before = [getattr(owner, name) for owner, name in watched]

    def run():
        assert all(
            getattr(owner, name) is not original
            for (owner, name), original in zip(watched, before, strict=True)
        )
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        counted(run)
    assert [getattr(owner, name) for owner, name in watched] == before
