"""The target ``xvisor:`` over a console of our own: what it reads, and what it makes of a console that misbehaves."""

from __future__ import annotations

import socket
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.hypervisors.fake_xvisor import PROMPT, RULE, FakeXvisor, on_socket, on_terminal
from tests.kernel.synthetic import ARM64, Guest, build, shown

import yamori
from yamori.address import GPA
from yamori.errors import MemoryFault, ProfileError, TargetError
from yamori.hypervisors import xvisor, xvisor_console
from yamori.hypervisors.vm import Missing
from yamori.hypervisors.xvisor import read_guests, read_regions, read_rows, read_words
from yamori.hypervisors.xvisor_console import Answer, Garbled
from yamori.kernel import portable
from yamori.kernel.discovery import discover
from yamori.memory.host import HostMemory
from yamori.memory.physical import BytesMemory

RAM = BytesMemory({0x4000_0000: bytes(range(256)) * 64})


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(xvisor_console, "ECHO_S", 0.2)
    monkeypatch.setattr(xvisor_console, "SILENCE_S", 0.02)
    monkeypatch.setattr(xvisor_console, "ANSWER_S", 0.4)


def memory_of(target: str) -> HostMemory:
    return HostMemory(xvisor.attach(target.partition(":")[2]).layouts[0])


@pytest.fixture(scope="module")
def guest() -> Guest:
    return build(ARM64)


@pytest.fixture(scope="module")
def maker(guest: Guest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A profile of the synthetic guest's kernel."""
    profile = discover(guest.memory()).profile
    assert profile.uts
    uts = profile.uts.gpa + profile.init.image_offset
    path = tmp_path_factory.mktemp("maker") / "kernel.profile"
    path.write_bytes(portable.dumps(portable.of_profile(profile, {"init_uts_ns": uts})))
    return path


# ---- What it reads


def test_memory_is_what_the_console_gives(tmp_path: Path) -> None:
    fake = FakeXvisor(RAM)
    with on_socket(fake, tmp_path / "s") as target:
        memory = memory_of(target)
        assert [tuple(region) for region in memory.regions] == [(0x4000_0000, 256 * 64)]
        assert memory.read(GPA(0x4000_0001), 700) == RAM.read(GPA(0x4000_0001), 700)
        asked = len(fake.ran)
        assert memory.read(GPA(0x4000_0010), 16) == bytes(range(16, 32))
        assert len(fake.ran) == asked, "what was read is kept"
        assert memory.forget()
        assert memory.read(GPA(0x4000_0010), 16) == bytes(range(16, 32))
        assert len(fake.ran) == asked + 2, "and asked for anew, with a mark, once it is forgotten"
        with pytest.raises(MemoryFault):
            memory.read(GPA(0x4000_0000 + 256 * 64 - 1), 2)
        with pytest.raises(Missing, match="more than a console gives"):
            list(memory.populated())
    assert all(
        command.startswith(("guest list", "guest region_list", "guest dumpmem", "ids help", "echo"))
        for command in fake.ran
    )


def test_serial_device(tmp_path: Path) -> None:
    with on_terminal(FakeXvisor(RAM)) as target:
        assert memory_of(target).read(GPA(0x4000_0000), 4096) == RAM.read(GPA(0x4000_0000), 4096)
    with pytest.raises(TargetError, match="no speed of 7 baud"):
        xvisor.attach("/dev/null?baud=7")
    with pytest.raises(TargetError, match="no serial device"):
        xvisor.attach("/dev/null")


def test_kernel_is_found_with_few_reads(
    guest: Guest, maker: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = FakeXvisor(guest.memory())
    with on_socket(fake, tmp_path / "s") as target, yamori.open(target, vmlinux=maker) as opened:
        result = opened.plist()
        assert result.complete, result.reasons
        assert shown(result) == guest.rows()
        report = opened.check(only=["carved-processes"])
        assert "console" in report.not_checked[0][1], "what reads all of RAM is not checked, and says why"
        assert opened.check(only=["shared-credentials"]).ran == ["shared-credentials"]
        monkeypatch.setattr(xvisor, "MOST_A_LOOK", 16 << 10)
        report = opened.check(only=["shared-credentials"])
        assert report.not_checked, "what was not read is not clean"
        assert not report.ran
    dumps = sum(command.startswith("guest dumpmem") for command in fake.ran)
    assert dumps < 1200


def test_without_a_profile_nothing_is_guessed(guest: Guest, tmp_path: Path) -> None:
    with (
        on_socket(FakeXvisor(guest.memory()), tmp_path / "s") as target,
        pytest.raises(ProfileError, match="profile export"),
    ):
        yamori.open(target)


def test_rows_are_new_in_every_run(guest: Guest, maker: Path, tmp_path: Path) -> None:
    changing = build(ARM64)
    with (
        on_socket(FakeXvisor(changing.memory()), tmp_path / "s") as target,
        yamori.open(target, vmlinux=maker) as opened,
    ):
        opened.plist()
        changing.write(changing.member(changing.by_pid(100).gva, "comm"), b"renamed\0")
        assert "renamed" in {row.comm for row in opened.plist()}


# ---- The exported commands

LINES = {
    "plist": [
        "P 1 1 0 0 0 0 0 S 0 32000000 0xc196a040 init",
        "P 2 2 0 - - - - - 1 - 0xffff8000c196eb80 k thread\\x1b",
        "= 2 99",
    ],
    "syscall": ["S 0 0xffff800008010000 1 1", "S 1 0xffff8000deadbee8 0 0", "= 2 5"],
    "banner": ["B Linux version 6.1.0 (a@b) (gcc 12.2.0) #1 SMP", "= 1 0"],
}


def test_exported_commands_are_used(tmp_path: Path) -> None:
    fake = FakeXvisor(RAM, LINES.__getitem__)
    with on_socket(fake, tmp_path / "s") as target, yamori.open(target) as opened:
        first, second = opened.plist()
        assert (first.pid, first.comm, first.start_time, first.kthread) == (1, "init", 0.032, False)
        assert (second.uid, second.state, second.start_time, second.comm) == (None, None, None, "k thread\\x1b")
        result = opened.syscall()
        assert [row.in_kernel_text for row in result] == [True, False]
        assert any("system call 1 does not lead" in note for note in result.notes)
        assert (opened.release, opened.banner().rows[0].compiler) == ("6.1.0", "gcc 12.2.0")
        with pytest.raises(ProfileError):
            opened.plist(threads=True)
    assert not any(command.startswith("guest dumpmem") for command in fake.ran)


def test_error_of_an_exported_command_is_told(tmp_path: Path) -> None:
    fake = FakeXvisor(RAM, lambda command: ["E not the kernel that these commands were made for: other"])
    with on_socket(fake, tmp_path / "s") as target, yamori.open(target) as opened:
        result = opened.plist()
        assert not result.complete
        assert result.reasons == ["not the kernel that these commands were made for: other"]
        with pytest.raises(TargetError, match="not the kernel"):
            opened.banner()


CHECKED = [
    "F process 12 0 evil \\x1b name",
    "F missing watchdogd",
    "F syscall 59 0xffff800000001234",
    "F code 60 0xffff800008010000",
]


def test_exported_check_is_a_report_of_what_it_is(tmp_path: Path) -> None:
    fake = FakeXvisor(RAM, lambda command: [*CHECKED, "= 4 99"] if command == "check" else LINES[command])
    with on_socket(fake, tmp_path / "s") as target, yamori.open(target) as opened:
        report = opened.check()
        assert [(one.detector, one.subject) for one in report.findings] == [
            ("unknown-process", "process 12"),
            ("unknown-process", "missing watchdogd"),
            ("system-calls", "system call 59"),
            ("inline-hooks", "code of system call 60"),
        ]
        assert [name for name, _ in report.not_checked] == ["all other detectors"]
        with pytest.raises(ProfileError):
            opened.check(only=["hidden-processes"])
    fake = FakeXvisor(RAM, lambda command: ["N process", "E given up"])
    with on_socket(fake, tmp_path / "t") as target, yamori.open(target) as opened:
        report = opened.check()
        assert (report.findings, report.ran) == ([], [])
        assert ("ids check", "given up") in report.not_checked
        assert {name for name, _ in report.not_checked} == {"ids check", "all other detectors", "unknown-process"}


@pytest.mark.parametrize("line", ["F process", "F process 1 0x3 sh", "F what 1 2", "P 1", "F syscall 59"])
def test_what_is_no_finding_is_refused(line: str, tmp_path: Path) -> None:
    fake = FakeXvisor(RAM, lambda command: [line, "= 1 1"])
    with (
        on_socket(fake, tmp_path / "s") as target,
        yamori.open(target) as opened,
        pytest.raises(TargetError, match="no row"),
    ):
        opened.check()


@pytest.mark.parametrize(
    "line", ["P 1 1", "P x 1 0 0 0 0 0 S 0 1 0xc1 init", "S 1 0x0 1 1", "P 1 1 0 0 0 0 0 S 0 1 c1 i"]
)
def test_what_is_no_row_is_refused(line: str, tmp_path: Path) -> None:
    fake = FakeXvisor(RAM, lambda command: [line, "= 1 1"])
    with (
        on_socket(fake, tmp_path / "s") as target,
        yamori.open(target) as opened,
        pytest.raises(TargetError, match=r"no row|something else"),
    ):
        opened.plist()


# ---- Consoles that misbehave


class Interrupted(FakeXvisor):
    """Something else writes in the middle of answers, for so many of them."""

    def __init__(self, noise: bytes, times: int) -> None:
        super().__init__(RAM)
        self.noise, self.times = noise, times

    def answer(self, line: str) -> bytes:
        said = super().answer(line)
        if "dumpmem" not in line or not self.times:
            return said
        self.times -= 1
        middle = said.index(b"\n") + 1
        return said[:middle] + self.noise + said[middle:]


NOISE = (
    b"[guest0/uart0] login: \r\n",
    PROMPT,
    b"0x0000000040000000: ffffffff ffffffff ffffffff ffffffff\r\n",
    b"\xff\x00",
    b"Error: command guest failed (code -3)\r\n" + PROMPT,
)


@pytest.mark.parametrize("noise", NOISE)
def test_what_others_write_is_never_taken_for_memory(noise: bytes, tmp_path: Path) -> None:
    with on_socket(Interrupted(noise, 2), tmp_path / "s") as target:
        assert memory_of(target).read(GPA(0x4000_0000), 4096) == RAM.read(GPA(0x4000_0000), 4096)
    with (
        on_socket(Interrupted(noise, 99), tmp_path / "t") as target,
        pytest.raises(TargetError, match="something else"),
    ):
        memory_of(target).read(GPA(0x4000_0000), 4096)


class Deaf(FakeXvisor):
    """It loses every hundredth byte that is typed."""

    count = 0

    def feed(self, byte: int) -> bytes:
        self.count += 1
        return b"" if self.count % 100 == 0 else super().feed(byte)


def test_lost_bytes_are_typed_again(tmp_path: Path) -> None:
    with on_socket(Deaf(RAM), tmp_path / "s") as target:
        memory = memory_of(target)
        assert memory.read(GPA(0x4000_0100), 2048) == RAM.read(GPA(0x4000_0100), 2048)


class Slow(FakeXvisor):
    """Each byte takes its time."""

    def feed(self, byte: int) -> bytes:
        time.sleep(0.003)
        return super().feed(byte)


def test_slow_line(tmp_path: Path) -> None:
    with on_socket(Slow(RAM), tmp_path / "s") as target:
        assert memory_of(target).read(GPA(0x4000_0000), 64) == bytes(range(64))


class Dying(FakeXvisor):
    """It says nothing more after so many commands."""

    left = 8

    def feed(self, byte: int) -> bytes:
        self.left -= byte == 0x0D
        return super().feed(byte) if self.left > 0 else b""


def test_dead_console_is_told(tmp_path: Path) -> None:
    started = time.monotonic()
    with on_socket(Dying(RAM), tmp_path / "s") as target:
        memory = memory_of(target)
        assert memory.read(GPA(0x4000_0000), 16) == bytes(range(16))
        with pytest.raises(TargetError, match="dead"):
            [memory.read(GPA(gpa), 16) for gpa in range(0x4000_0000, 0x4000_4000, 256)]
    assert time.monotonic() - started < 10


class Closing(FakeXvisor):
    """The hypervisor is reset, and its socket goes."""

    def answer(self, line: str) -> bytes:
        if "dumpmem" in line:
            raise OSError
        return super().answer(line)


def test_console_that_goes_is_told(tmp_path: Path) -> None:
    with on_socket(Closing(RAM), tmp_path / "s") as target:
        memory = memory_of(target)
        with pytest.raises(TargetError, match=r"closed|gone"):
            memory.read(GPA(0x4000_0000), 16)


def test_reset_in_the_middle_is_survived(tmp_path: Path) -> None:
    class Reset(FakeXvisor):
        done = False

        def answer(self, line: str) -> bytes:
            said = super().answer(line)
            if "dumpmem" in line and not self.done:
                self.done = True
                return said[:40] + b"\r\nXvisor v0.3.2\r\nINIT: bootcmd:\r\n\r\n"
            return said

    with on_socket(Reset(RAM), tmp_path / "s") as target:
        assert memory_of(target).read(GPA(0x4000_0000), 16) == bytes(range(16))


def test_half_a_line_of_somebody_else_is_not_carried_out(tmp_path: Path) -> None:
    fake = FakeXvisor(RAM)
    fake.line += b"guest destroy guest0"
    with on_socket(fake, tmp_path / "s") as target:
        memory_of(target)
    assert not any("destroy" in command for command in fake.ran)


def test_a_bound_guest_is_not_typed_at(tmp_path: Path) -> None:
    class Bound(FakeXvisor):
        typed = b""

        def feed(self, byte: int) -> bytes:
            self.typed += bytes([byte])
            return b"\r\n[guest0/uart0] ~ # " if byte == 0x0D else b""

    fake = Bound(RAM)
    with on_socket(fake, tmp_path / "s") as target, pytest.raises(TargetError, match="bound to it"):
        memory_of(target)
    assert set(fake.typed) <= {0x7F, 0x0D}


def test_nobody_there(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "silent"))
        server.listen()
        with pytest.raises(TargetError, match="dead"):
            xvisor.attach(f"{tmp_path}/silent")
    with pytest.raises(TargetError, match="cannot be reached"):
        xvisor.attach(f"{tmp_path}/silent")
    with pytest.raises(TargetError, match="cannot be reached"):
        xvisor.attach(f"{tmp_path}/none")


def test_endless_output_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(xvisor_console, "MOST_BYTES", 1 << 16)
    with (
        on_socket(Interrupted(b"x" * (1 << 17), 99), tmp_path / "s") as target,
        pytest.raises(TargetError, match="stop"),
    ):
        memory_of(target).read(GPA(0x4000_0000), 16)


def test_memory_that_takes_too_long_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with on_socket(FakeXvisor(RAM), tmp_path / "s") as target:
        memory = memory_of(target)
        monkeypatch.setattr(xvisor, "MOST_A_LOOK", 255)
        memory.forget(renew=True)
        with pytest.raises(MemoryFault, match="in time"):
            memory.read(GPA(0x4000_0000), 16)


# ---- What is typed as a target


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("?guest=g", "no console"),
        ("relative.sock", "no console"),
        ("host:99999", "no console"),
        ("/dev/null?baud=fast", "no console"),
        ("/dev/null?guest=a b", "no console"),
        ("/dev/null?guest=a;guest destroy a", "no console"),
        ("/dev/null?speed=1", "no option 'speed'"),
    ],
)
def test_targets_that_are_none(spec: str, says: str) -> None:
    with pytest.raises(TargetError, match=says):
        xvisor.attach(spec)


def test_which_guest(tmp_path: Path) -> None:
    class Two(FakeXvisor):
        names = ("guest0", "guest1")

    with on_socket(Two(RAM), tmp_path / "s") as target:
        with pytest.raises(TargetError, match=r"which guest\?.*guest0, guest1"):
            xvisor.attach(f"{tmp_path}/s")
        with pytest.raises(TargetError, match="no guest 'other'"):
            xvisor.attach(f"{tmp_path}/s?guest=other")
        assert xvisor.attach(target.partition(":")[2]).name == "guest0"
    with pytest.raises(TargetError, match="--ram-base"):
        xvisor.attach(f"{tmp_path}/s", ram_base=0x4000_0000)


def test_by_tcp() -> None:
    fake = FakeXvisor(RAM)
    with socket.create_server(("127.0.0.1", 0)) as server:
        from tests.hypervisors.fake_xvisor import serve  # noqa: PLC0415

        thread = threading.Thread(target=lambda: serve(fake, server.accept()[0].detach()), daemon=True)
        thread.start()
        assert memory_of(f"xvisor:127.0.0.1:{server.getsockname()[1]}").read(GPA(0x4000_0000), 3) == b"\0\1\2"


# ---- Parsers, which read what anybody may have written

TEXT = st.text(st.characters(max_codepoint=255), max_size=60)
PIECES = st.one_of(
    TEXT,
    st.sampled_from(
        [
            RULE,
            "",
            " 0      guest0            little        /guests/guest0",
            "Region guest physical address: 0x0000000040000000",
            "Region flags                 : 0x00001169",
            "\t0x0000000040000000 => 0x0000000046200000 (2 MB)",
            "guest0 physical memory 0x0000000040000000 - 0x0000000040000010:",
            "0x0000000040000000: 00000001 00000002 00000003 00000004",
            "P 1 1 0 0 0 0 0 S 0 1 0x1 init",
            "= 1 1",
            "E why",
            "Error: command guest failed (code -3)",
        ]
    ),
)


@given(st.lists(PIECES, max_size=8), st.booleans())
def test_parsers_refuse_or_return(lines: list[str], ok: bool) -> None:
    answer = Answer(lines, ok)
    for parse in (read_guests, read_regions, read_rows):
        try:
            parse(answer)
        except Garbled:
            continue
    try:
        data = read_words(answer, 0x4000_0000, 16)
    except (Garbled, Missing):
        return
    assert lines[1:] == ["0x0000000040000000: 00000001 00000002 00000003 00000004"]
    assert data == bytes([1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4, 0, 0, 0])


@given(st.lists(st.tuples(st.integers(0, 99), st.binary(min_size=1, max_size=40)), max_size=4))
def test_memory_is_right_or_refused(noise: list[tuple[int, bytes]]) -> None:
    """Whatever is put anywhere into an answer, it is refused, unless it changes nothing."""
    said = FakeXvisor(RAM).answer("guest dumpmem guest0 0x40000000 64").decode("latin-1")
    spoilt = said
    for place, more in noise:
        at = place * len(spoilt) // 100
        spoilt = spoilt[:at] + more.decode("latin-1") + spoilt[at:]
    try:
        data = read_words(Answer(spoilt.replace("\r\n", "\n").removesuffix("\n").split("\n"), ok=True), 0x4000_0000, 64)
    except Garbled:
        return
    assert data == bytes(range(64))
