"""Compiled units under ``unicorn``: another machine's code, which translates by itself and calls no Python."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from yamori.address import GPA
from yamori.llview import layout
from yamori.llview.c_backend import c_source
from yamori.llview.faults import MOST_TROUBLES, Code
from yamori.llview.ir import Program
from yamori.llview.machine import DEFAULT_BUDGET, Machine, Outcome, SlotFill
from yamori.llview.native import new_context, read_outcome, slot_words, words
from yamori.llview.objects import FLAGS, TARGETS
from yamori.llview.unit import Unit, row_layout
from yamori.memory.physical import PhysicalMemory, Region, host_extents

CODE, DATA, STACK, RAM = 0x10000, 0x1000_0000, 0x3000_0000, 0x4000_0000
"""Addresses in the emulator: of the program, of what the context points to, of the stack, and of the guest's RAM."""

STACK_SIZE = 1 << 20
STOP = CODE - 0x1000
PAGE = 0x1000
READ = 1  # UC_PROT_READ

CONTRACT = """
static const struct ll_region *find(const struct ll_context *c, uint64_t gpa)
{
    const struct ll_region *region = (const struct ll_region *)(uintptr_t)c->regions;

    for (uint64_t i = 0; i < c->region_count; i++, region++)
        if (gpa - region->gpa < region->size)
            return region;
    return NULL;
}

uint64_t ll_window(const struct ll_context *c, uint64_t gpa, uint64_t *first, uint64_t *size);
uint64_t ll_window(const struct ll_context *c, uint64_t gpa, uint64_t *first, uint64_t *size)
{
    const struct ll_region *region = find(c, gpa);

    if (!region)
        return 0;
    *first = region->gpa;
    *size = region->size;
    return region->host;
}

uint64_t ll_read(const struct ll_context *c, uint64_t gpa, uint64_t size, uint64_t *value);
uint64_t ll_read(const struct ll_context *c, uint64_t gpa, uint64_t size, uint64_t *value)
{
    const struct ll_region *region = find(c, gpa);
    const volatile uint8_t *bytes;

    if (!region || size > region->size - (gpa - region->gpa))
        return LL_OUTSIDE;
    bytes = (const volatile uint8_t *)(uintptr_t)(region->host + (gpa - region->gpa));
    *value = 0;
    for (uint64_t i = 0; i < size; i++)
        *value |= (uint64_t)bytes[i] << (8 * i);
    return LL_NONE;
}
"""


class Cpu(NamedTuple):
    """Names in ``unicorn`` of what a call needs."""

    constants: str
    arch: str
    mode: str
    registers: str
    argument: str
    link: str
    stack: str


CPUS = {
    "aarch64": Cpu("arm64_const", "UC_ARCH_ARM64", "UC_MODE_ARM", "UC_ARM64_REG_", "X0", "X30", "SP"),
    "armv7l": Cpu("arm_const", "UC_ARCH_ARM", "UC_MODE_ARM", "UC_ARM_REG_", "R0", "LR", "SP"),
    "riscv64": Cpu("riscv_const", "UC_ARCH_RISCV", "UC_MODE_RISCV64", "UC_RISCV_REG_", "A0", "RA", "SP"),
}


def needed(machine: str) -> None:
    """Skip a test where its tools are missing."""
    pytest.importorskip("unicorn", reason="unicorn is not installed")
    pytest.importorskip("elftools", reason="pyelftools is not installed")
    if not shutil.which(TARGETS[machine].compiler):
        pytest.skip(f"{TARGETS[machine].compiler} is not installed")


class Emulated:
    """A unit as code of another machine; an ``Engine``."""

    def __init__(self, unit: Unit, machine: str, work: Path, *, folded: bool = False) -> None:
        self._unit, self._cpu = unit, CPUS[machine]
        self._segments, self._entries = _load(_link(unit, machine, work, folded=folded), unit)

    def run(
        self,
        program: Program,
        machine: Machine,
        slots: list[SlotFill],
        arguments: tuple[int, ...] = (),
        *,
        budget: int = DEFAULT_BUDGET,
        trace: bool = False,
    ) -> Outcome:
        """Run a probe once; again where rows or events found no room."""
        rows, events = 64, 4096 if trace else 0
        given = words([local.type.wrap(value) for local, value in zip(program.parameters, arguments, strict=True)])
        context = new_context(machine, self._unit.walkers.index(machine.walker))
        while True:
            run = _Run(self._cpu, context, machine.memory, row_layout(program).stride, (rows, events))
            run.give(slots, given, budget)
            status = run.call(self._segments, self._entries[program.name])
            if status and run.context.fault.code == Code.ROWS:
                rows *= 4
            elif trace and run.context.event_count > events:
                events = run.context.event_count
            else:
                return read_outcome(program, run.context, run.rows, run.events, run.troubles, ended=bool(status))


class _Run:
    def __init__(
        self, cpu: Cpu, context: Any, memory: PhysicalMemory, stride: int, capacities: tuple[int, int]
    ) -> None:
        unicorn: Any = import_module("unicorn")  # tests are skipped without it
        self.cpu, self.constants = cpu, import_module(f"unicorn.{cpu.constants}")
        self.emulator: Any = unicorn.Uc(getattr(unicorn, cpu.arch), getattr(unicorn, cpu.mode))
        self.context: Any = type(context).from_buffer_copy(context)
        self.memory = memory
        self.rows = ctypes.create_string_buffer(max(1, capacities[0] * stride))
        self.events = ctypes.create_string_buffer(max(1, capacities[1] * 8 * layout.words("event")))
        self.troubles = (layout.STRUCTURES["trouble"] * MOST_TROUBLES)()
        self.context.row_stride = stride
        self.context.row_capacity, self.context.event_capacity = capacities
        self.context.trouble_capacity = MOST_TROUBLES
        self.placed: list[tuple[int, Any]] = []
        self.shared: list[Any] = []
        self.end = DATA

    def give(self, slots: list[SlotFill], arguments: Any, budget: int) -> None:
        """Lay out all that the context points to."""
        context = self.context
        regions, at = [], RAM
        for region in self.memory.regions:
            host = at + region.gpa % PAGE
            regions += [region.gpa, region.size, host, 0, 0, 0]
            pages = -(-(host % PAGE + region.size) // PAGE)
            self.map(region, host, pages * PAGE)
            at += (pages + 1) * PAGE
        context.region_count = len(self.memory.regions)
        context.regions, context.slots = self.place(words(regions)), self.place(slot_words(slots))
        context.arguments, context.rows = self.place(arguments), self.place(self.rows)
        context.events, context.troubles = self.place(self.events), self.place(self.troubles)
        context.budget = budget

    def map(self, region: Region, host: int, size: int) -> None:
        """Let the emulator have a region of RAM; the memory's own bytes where they are whole pages, else a copy."""
        for extent in host_extents(self.memory) or ():
            if (extent.gpa, extent.size) == region and isinstance(extent.buffer, bytearray) and region.size == size:
                start = (ctypes.c_char * size).from_buffer(extent.buffer, extent.offset)
                self.shared.append(start)  # a bytearray does not move while somebody holds it
                self.emulator.mem_map_ptr(host, size, READ, ctypes.addressof(start))
                return
        self.emulator.mem_map(host // PAGE * PAGE, size)
        self.emulator.mem_write(host, self.memory.read(GPA(region.gpa), region.size))

    def place(self, data: Any) -> int:
        """Put something at an address of its own."""
        address, self.end = self.end, self.end + -(-len(bytes(data)) // PAGE) * PAGE + PAGE
        self.placed.append((address, data))
        return address

    def call(self, segments: list[tuple[int, bytes]], entry: int) -> int:
        """Run the code to its return; what it wrote is copied back."""
        emulator = self.emulator
        for address, data in segments:
            start = address // PAGE * PAGE
            emulator.mem_map(start, (address + len(data) - start + PAGE - 1) // PAGE * PAGE)
            emulator.mem_write(address, data)
        emulator.mem_map(STOP, PAGE)
        emulator.mem_map(STACK, STACK_SIZE)
        context = self.place(self.context)
        emulator.mem_map(DATA, self.end - DATA)
        for address, data in self.placed:
            emulator.mem_write(address, bytes(data))
        if self.cpu.arch == "UC_ARCH_ARM64":
            emulator.reg_write(self.constants.UC_ARM64_REG_CPACR_EL1, 3 << 20)  # gcc clears memory by vector registers
        emulator.reg_write(self.register(self.cpu.stack), STACK + STACK_SIZE - 64)
        emulator.reg_write(self.register(self.cpu.link), STOP)
        emulator.reg_write(self.register(self.cpu.argument), context)
        emulator.emu_start(entry, STOP)
        for address, data in self.placed:
            if isinstance(data, ctypes.Array | ctypes.Structure):
                size = ctypes.sizeof(data)
                ctypes.memmove(ctypes.addressof(data), bytes(emulator.mem_read(address, size)), size)
        return int(emulator.reg_read(self.register(self.cpu.argument))) & 0xFFFFFFFF

    def register(self, name: str) -> int:
        return int(getattr(self.constants, self.cpu.registers + name))


def _link(unit: Unit, machine: str, work: Path, *, folded: bool) -> Path:
    """Compile a unit with the regions' side of the contract, to be loaded at fixed addresses."""
    target = TARGETS[machine]
    text, contract, linked = (work / f"{machine}.{name}" for name in ("unit.c", "contract.c", "elf"))
    text.write_text(c_source(unit), encoding="utf-8")
    contract.write_text(layout.C_TEXT + CONTRACT, encoding="utf-8")
    flags = [*(flag for flag in FLAGS if flag != "-fPIC"), "-fno-pic", "-Werror", *target.flags]
    if folded:
        # gcc 12 sometimes warns of a conversion of unsigned int to itself, where it folded "(a - (uint32_t)b) & 63".
        flags += ["-O1", "-Wno-sign-conversion"]
    # Nobody sets up RISC-V's gp here, which relaxed code would read constants by.
    linking = [
        *("-nostdlib", "-static", "-no-pie", "-Wl,--build-id=none", "-Wl,--no-relax"),
        *(f"-Wl,-Ttext-segment={CODE:#x}", "-Wl,-e,0"),
    ]
    command = [target.compiler, *flags, *linking, "-o", str(linked), str(text), str(contract)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return linked


def _load(path: Path, unit: Unit) -> tuple[list[tuple[int, bytes]], dict[str, int]]:
    """Return the segments, as they lie in memory, and the probes' addresses."""
    with path.open("rb") as stream:
        elf: Any = import_module("elftools.elf.elffile").ELFFile(stream)
        found = [s for s in elf.iter_segments() if s["p_type"] == "PT_LOAD"]
        segments = [(int(s["p_vaddr"]), bytes(s.data()).ljust(s["p_memsz"], b"\0")) for s in found]
        symbols = elf.get_section_by_name(".symtab")
        names = {probe.name: f"ll_run_{probe.name}" for probe in unit.probes}
        entries = {name: int(symbols.get_symbol_by_name(symbol)[0]["st_value"]) for name, symbol in names.items()}
    return segments, entries
