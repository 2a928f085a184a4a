"""What the kernel says, decoded; and what happens where it must not be asked."""

import ctypes
import os
import subprocess
import sys
import textwrap
from types import SimpleNamespace

import pytest

from agent.clock import kernel
from agent.clock.kernel import KernelClock, Timex, decode, kernel_clock

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="adjtimex is Linux's")


def test_struct_timex_has_the_offsets_of_the_system_headers():
    long = ctypes.sizeof(ctypes.c_long)
    assert Timex.maxerror.offset == 3 * long
    assert Timex.status.offset == 5 * long
    assert Timex.tick.offset == 11 * long
    assert ctypes.sizeof(Timex) > 208


def test_the_remaining_offset_is_in_ns_under_sta_nano_else_in_us():
    assert decode(Timex(maxerror=7, offset=-300_000, status=kernel.STA_NANO)) == KernelClock(7_000, -300_000)
    assert decode(Timex(maxerror=7, offset=-300_000, status=0)) == KernelClock(7_000, -300_000_000)


@pytest.mark.parametrize(("maxerror_us", "vouches"), [(0, True), (15_999_999, True), (16_000_000, False), (-1, False)])
def test_the_kernel_vouches_below_16_s_as_systemd_judges_it(maxerror_us, vouches):
    assert decode(Timex(maxerror=maxerror_us, status=0x40)).vouches is vouches


@linux
def test_this_machine_is_asked_without_harm():
    said = kernel_clock()
    assert said is None or said.max_error_ns >= 0


@pytest.mark.parametrize(
    ("program", "why"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSYS)", "deadly"),
        ("raise SystemExit(3)", "refused"),
        ("import time; time.sleep(30)", "cannot be asked"),
    ],
    ids=["seccomp kill", "EPERM", "hangs"],
)
@linux
def test_where_asking_is_deadly_or_refused_the_answer_is_unknown(monkeypatch, caplog, program, why):
    caplog.set_level("INFO")
    monkeypatch.setattr(kernel, "_ASK", program)
    monkeypatch.setattr(kernel, "_ASK_TIMEOUT_S", 0.5 if why == "cannot be asked" else 20)
    kernel.answers.cache_clear()
    try:
        assert kernel_clock() is None
        assert kernel_clock() is None
    finally:
        kernel.answers.cache_clear()
    assert caplog.text.count(why) == 1


@linux
@pytest.mark.parametrize(("code", "may"), [(0, True), (1, False), (3, False)])
def test_what_may_be_asked_is_what_a_child_process_has_asked_and_lived(monkeypatch, code, may):
    monkeypatch.setattr(kernel, "_ASK", f"raise SystemExit({code})")
    kernel.answers.cache_clear()
    try:
        assert kernel.answers() is may
    finally:
        kernel.answers.cache_clear()


def test_macos_has_no_adjtimex_and_asks_nobody(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("asked"))
    kernel.answers.cache_clear()
    try:
        assert kernel_clock() is None
    finally:
        kernel.answers.cache_clear()


@linux
@pytest.mark.parametrize("action", ["0x80000000", "0x00050001"], ids=["kill", "EPERM"])
def test_a_real_system_call_filter_against_adjtimex_does_no_harm(action):
    """As systemd's SystemCallFilter= installs it without SystemCallErrorNumber=, and as containers do."""
    if os.uname().machine != "x86_64":
        pytest.skip("the filter is written for x86_64")
    program = """
        import ctypes, struct
        libc = ctypes.CDLL(None, use_errno=True)
        def op(code, jt, jf, k): return struct.pack("HBBI", code, jt, jf, k)
        code = b"".join([
            op(0x20, 0, 0, 0),             # the system call's number
            op(0x15, 1, 0, 159),           # adjtimex
            op(0x15, 0, 1, 305),           # clock_adjtime
            op(0x06, 0, 0, ACTION),
            op(0x06, 0, 0, 0x7fff0000),    # allow
        ])
        class Program(ctypes.Structure):
            _fields_ = [("length", ctypes.c_ushort), ("code", ctypes.c_char_p)]
        assert libc.prctl(38, 1, 0, 0, 0) == 0
        assert libc.prctl(22, 2, ctypes.byref(Program(5, code)), 0, 0) == 0, ctypes.get_errno()
        from agent.clock.kernel import kernel_clock
        print(kernel_clock())
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program).replace("ACTION", action)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    if "AssertionError" in done.stderr:
        pytest.skip("system-call filters cannot be set here")
    assert (done.returncode, done.stdout) == (0, "None\n"), done.stderr


@linux
def test_where_no_process_can_be_started_the_answer_is_unknown(monkeypatch, caplog):
    caplog.set_level("INFO")
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    kernel.answers.cache_clear()
    try:
        assert kernel_clock() is None
    finally:
        kernel.answers.cache_clear()
    assert "cannot be asked" in caplog.text


@pytest.mark.parametrize(("answer", "known"), [(0, True), (5, True), (-1, False)])
def test_the_kernels_word_is_taken_unless_it_refuses(monkeypatch, answer, known):
    """5 is TIME_ERROR: the clock is not synchronised, and what it is off by is said all the same."""

    def adjtimex(asked):
        timex = ctypes.cast(asked, ctypes.POINTER(Timex)).contents
        timex.maxerror, timex.offset, timex.status = 7, -3, kernel.STA_NANO
        return answer

    monkeypatch.setattr(kernel, "answers", lambda: True)
    monkeypatch.setattr(ctypes, "CDLL", lambda _: SimpleNamespace(adjtimex=adjtimex))
    assert kernel_clock() == (KernelClock(7_000, -3) if known else None)
