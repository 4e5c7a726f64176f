"""One thread watches the time of all calls."""

import os
import threading
import time

import pytest

from osport.core.alarm import alarm


def test_what_lasts_too_long_is_acted_on_and_nothing_else():
    late, early = threading.Event(), threading.Event()
    with alarm(60, early.set), alarm(0.05, late.set):
        assert late.wait(5)
    with alarm(0.05, early.set):
        pass
    time.sleep(0.2)
    assert not early.is_set()


def test_a_nearer_moment_wakes_the_thread_that_waits_for_a_later_one():
    with alarm(60, lambda: None):
        time.sleep(0.05)  # until it waits
        rang = threading.Event()
        with alarm(0.05, rang.set):
            assert rang.wait(5)


def test_many_at_once_each_ring_once():
    rang = []
    waiting = threading.Barrier(9)

    def call(number):
        with alarm(0.05, lambda: rang.append(number)):
            waiting.wait()
            time.sleep(0.3)

    threads = [threading.Thread(target=call, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    waiting.wait()
    for thread in threads:
        thread.join()
    assert sorted(rang) == list(range(8))
    assert sum(thread.name == "osport-alarm" for thread in threading.enumerate()) == 1


def test_one_that_fails_leaves_the_others_watched():
    rang = threading.Event()
    with alarm(0.01, lambda: 1 / 0), alarm(0.1, rang.set):
        assert rang.wait(5)
    with alarm(0.01, rang.clear):
        time.sleep(0.2)
    assert not rang.is_set()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_process_has_alarms_of_its_own():
    with alarm(60, lambda: None):
        reader, writer = os.pipe()
        child = os.fork()
        if not child:
            rang = threading.Event()
            with alarm(0.05, rang.set):
                os.write(writer, b"y" if rang.wait(5) else b"n")
            os._exit(0)
        os.close(writer)
        assert os.read(reader, 1) == b"y"
        os.waitpid(child, 0)
