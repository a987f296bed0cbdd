/**
 * What runs between two kernels: entered where the old one ends (kexec, or a panic), it makes sure that the new one is
 * what was loaded and goes there. Position independent; docs/spec/purgatory.md describes its parameter block for other
 * loaders.
 *
 *     +0     jmp to the code
 *     +8     purgatory_parameters, filled by the loader
 *     ...    code, tables, stack
 *
 * On entry: 64-bit mode with an identity map of all segments, interrupts off; at (%rsp) the address where the kernel
 * before wants to be entered again, or 0 (arch/x86/kernel/relocate_kernel_64.S).
 */
import { align, assemble, code32, db, dd, dq, dw, type Item, resb } from './assemble.ts';
import {
  and,
  call,
  cld,
  cli,
  dec,
  hlt,
  jmp,
  jmpFar,
  jns,
  jnz,
  jz,
  lea,
  lgdt,
  lidt,
  mov,
  movzx,
  or,
  push,
  rdmsr,
  rep,
  ret,
  retfq,
  rol,
  stosb,
  test,
  wrmsr,
  xor,
} from './instructions.ts';
import {
  al,
  byte,
  cr0,
  cr4,
  ds,
  dword,
  eax,
  ebp,
  ebx,
  ecx,
  edi,
  edx,
  es,
  esi,
  fs,
  gs,
  type Label,
  label,
  mem,
  near,
  qword,
  r12,
  rax,
  rbp,
  rbx,
  rcx,
  rdi,
  rdx,
  rsi,
  rsp,
  ss,
  word,
} from './operands.ts';
import {
  ENTRY_32,
  PARAMETERS_OFFSET,
  PURGATORY_MAGIC,
  PURGATORY_VERSION,
  purgatory_parameters,
  REGIONS_MAX,
  RESET_PIC,
  RESET_VGA,
} from './parameters.ts';
import { pcCode } from './pc.ts';
import { sha256Code } from './sha256.ts';
import { chooseSha256, verifyRegions } from './verify.ts';

type Block = ReturnType<typeof purgatory_parameters.read>;

/** What a loader may say; what it leaves out is 0, which means no. */
export type PurgatoryParameters = Partial<Omit<Block, 'magic' | 'version' | 'region_count'>>;

/** Selectors that the boot protocol asks for, __BOOT_CS and __BOOT_DS: boot.rst, "64-bit Boot Protocol". */
const BOOT_CS = 0x10;
const BOOT_DS = 0x18;

/** CR4: SSE instructions are allowed. The kernel leaves these bits off at a kexec. */
const OSFXSR_AND_OSXMMEXCPT = (1 << 9) | (1 << 10);
const CR0_EM_AND_TS = (1 << 2) | (1 << 3);
const CR0_PG = 0x8000_0000;
const MSR_EFER = 0xc000_0080;
const EFER_LME = 1 << 8;

let assembled: Uint8Array | undefined;

/**
 * The purgatory with its parameters, to be loaded at any multiple of 4096 and entered at its first byte.
 *
 * @throws RangeError for more than REGIONS_MAX regions
 */
export function purgatory(parameters: PurgatoryParameters): Uint8Array {
  assembled ??= assemble(code()).bytes;
  const bytes = assembled.slice();
  const { regions: given = [], ...rest } = parameters;
  if (given.length > REGIONS_MAX) throw new RangeError(`${given.length} regions, and ${REGIONS_MAX} at most`);
  const none = { start: 0, size: 0, sha256: new Uint8Array(32) };
  const regions = Array.from({ length: REGIONS_MAX }, (_, i) => given[i] ?? none);
  const block = { magic: PURGATORY_MAGIC, version: PURGATORY_VERSION, ...rest, region_count: given.length, regions };
  purgatory_parameters.write(block, bytes, PARAMETERS_OFFSET);
  return bytes;
}

function code(): Item[] {
  const [begin, reloaded, noVga, noPic, noJump, damage, enter32, parameters] = (
    ['begin', 'reloaded', 'no_vga', 'no_pic', 'no_jump', 'damage', 'enter_32', 'parameters'] as const
  ).map((name) => label(name)) as [Label, Label, Label, Label, Label, Label, Label, Label];
  const [gdt, gdtPointer, noIdt, stackTop] = [label('gdt'), label('gdt_pointer'), label('no_idt'), label('stack_top')];
  const [choose, verify, backup, hex] = [label('choose'), label('verify'), label('backup'), label('hex')];
  const sha = sha256Code();
  const pc = pcCode();
  const at = purgatory_parameters.offsets;
  const parameter = (field: keyof typeof at) => ({ base: rbp, disp: at[field] });
  return [
    ...[jmp(near(begin)), align(PARAMETERS_OFFSET), parameters, resb(purgatory_parameters.size)],

    begin,
    cli(),
    cld(),
    mov(rbx, qword({ base: rsp })),
    // Nothing of the old kernel is used from here on but its page tables: own stack, own segments, and no interrupt
    // descriptors, so that a fault resets the machine at once.
    lea(rsp, mem({ rip: stackTop })),
    lea(rax, mem({ rip: gdt })),
    mov(qword({ rip: gdtPointer, disp: 2 }), rax),
    lgdt(mem({ rip: gdtPointer })),
    lidt(mem({ rip: noIdt })),
    mov(eax, BOOT_DS),
    ...[ds, es, ss, fs, gs].map((segment) => mov(segment, eax)),
    ...[push(BOOT_CS), lea(rax, mem({ rip: reloaded })), push(rax), retfq()],
    reloaded,
    lea(rbp, mem({ rip: parameters })),

    ...[test(dword(parameter('flags')), RESET_VGA), jz(noVga), call(pc.resetVga), noVga],
    ...[test(dword(parameter('flags')), RESET_PIC), jz(noPic), call(pc.resetPic), noPic],

    // SSE on for the SHA instructions, and back as it was.
    ...[mov(rax, cr0), and(eax, ~CR0_EM_AND_TS), mov(cr0, rax)],
    ...[mov(r12, cr4), mov(rax, r12), or(eax, OSFXSR_AND_OSXMMEXCPT), mov(cr4, rax)],
    ...[call(choose), mov(rsi, rax), mov(rdi, rbp), call(verify)],
    ...[test(eax, eax), jns(damage)],
    mov(cr4, r12),

    // Only now is something changed: the digests are of memory as it was loaded.
    ...[mov(rdi, rbp), call(backup)],
    ...[mov(rdi, qword(parameter('jump_back_text'))), test(rdi, rdi), jz(noJump)],
    ...[mov(rsi, rbx), call(hex), noJump],

    ...[test(dword(parameter('flags')), ENTRY_32), jnz(enter32)],
    mov(rsi, qword(parameter('boot_params'))),
    mov(rax, qword(parameter('entry'))),
    ...[xor(ebx, ebx), xor(ebp, ebp), xor(edi, edi)],
    jmp(rax),

    enterProtectedMode(enter32, parameter),
    stopWithMessage(damage, pc.print, parameter),
    copyBackup(backup),
    hexDigits(hex),
    chooseSha256(choose, sha.plain, sha.shaNi),
    verifyRegions(verify, sha.sha256),
    pc.items,
    sha.items,

    align(16),
    gdt,
    // null, unused, code, data: base 0, limit 4 GB, ring 0; the code segment's L bit makes it 64-bit
    dq(0, 0, 0x00af9a000000ffffn, 0x00cf92000000ffffn),
    ...[gdtPointer, dw(4 * 8 - 1), dq(0), noIdt, dw(0), dq(0)],
    // Pages of its own: writing beside code is slow, as the processor must see whether the code changes.
    align(4096),
    resb(4096),
    stackTop,
  ];
}

type Parameter = (field: keyof typeof purgatory_parameters.offsets) => { base: typeof rbp; disp: number };

/**
 * Out of long mode: a far jump into a 32-bit code segment, then paging, long mode and PAE off (SDM Vol. 3, 11.8.5.4), then
 * registers as boot.rst, "32-bit Boot Protocol" has them. Everything lies below 4 GB, or the loader would not ask for it.
 */
function enterProtectedMode(entry: Label, parameter: Parameter): Item[] {
  const [protectedMode, pointer, farPointer, gdt] = [
    label('protected_mode'),
    label('gdt32_pointer'),
    label('far_pointer'),
    label('gdt32'),
  ];
  return [
    entry,
    lea(rax, mem({ rip: gdt })),
    mov(qword({ rip: pointer, disp: 2 }), rax),
    lgdt(mem({ rip: pointer })),
    lea(rax, mem({ rip: protectedMode })),
    mov(dword({ rip: farPointer }), eax),
    mov(esi, dword(parameter('boot_params'))),
    mov(edi, dword(parameter('entry'))),
    jmpFar(mem({ rip: farPointer })),
    protectedMode,
    code32(
      mov(eax, BOOT_DS),
      ...[ds, es, ss, fs, gs].map((segment) => mov(segment, eax)),
      ...[mov(eax, cr0), and(eax, ~CR0_PG), mov(cr0, eax)],
      ...[mov(ecx, MSR_EFER), rdmsr(), and(eax, ~EFER_LME), wrmsr()],
      ...[xor(eax, eax), mov(cr4, eax)],
      ...[mov(eax, edi), xor(ebx, ebx), xor(ebp, ebp), xor(edi, edi)],
      jmp(eax),
    ),
    align(16),
    ...[gdt, dq(0, 0, 0x00cf9a000000ffffn, 0x00cf92000000ffffn)],
    ...[pointer, dw(4 * 8 - 1), dq(0), farPointer, dd(0), dw(BOOT_CS)],
  ];
}

/** `stop(index: eax)`: says which region is damaged, and stays here. */
function stopWithMessage(entry: Label, print: Label, parameter: Parameter): Item[] {
  const [silent, digits, stop, text, place] = [
    label('silent'),
    label('digits'),
    label('stop'),
    label('text'),
    label('place'),
  ];
  return [
    entry,
    lea(rsi, mem({ rip: digits })),
    mov(al, byte({ base: rsi, index: rax })),
    mov(byte({ rip: place }), al),
    movzx(edi, word(parameter('serial_port'))),
    ...[test(edi, edi), jz(silent), lea(rsi, mem({ rip: text })), call(print)],
    ...[silent, stop, cli(), hlt(), jmp(stop)],
    ...[digits, db('0123456789abcdef')],
    text,
    db('\r\ntideover purgatory: segment '),
    place,
    db('? of the next kernel was changed after it was loaded (SHA-256 differs). Stopped.\r\n', 0),
  ];
}

/** `backup(parameters: rdi)`: the copy that is asked for, of 0 bytes where none is. */
export function copyBackup(entry: Label): Item[] {
  const { backup_from, backup_to, backup_size } = purgatory_parameters.offsets;
  return [
    entry,
    mov(rsi, qword({ base: rdi, disp: backup_from })),
    mov(rcx, qword({ base: rdi, disp: backup_size })),
    mov(rdi, qword({ base: rdi, disp: backup_to })),
    rep.movsb(),
    ret(),
  ];
}

/** `hex(to: rdi, value: rsi)`: 16 lower-case digits. */
export function hexDigits(entry: Label): Item[] {
  const [again, digits] = [label('hex_again'), label('hex_digits')];
  return [
    ...[entry, mov(rdx, rsi), mov(ecx, 16), lea(rsi, mem({ rip: digits }))],
    ...[again, rol(rdx, 4), mov(eax, edx), and(eax, 15), mov(al, byte({ base: rsi, index: rax })), stosb()],
    ...[dec(ecx), jnz(again), ret()],
    ...[digits, db('0123456789abcdef')],
  ];
}
