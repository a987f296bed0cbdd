/**
 * The constants, structs and numbers of src/abi beside the headers installed on this machine, as gcc sees them. What is newer than
 * these headers is not compared, and must be on the written list below.
 */
import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { before, test } from 'node:test';
import { requirePackages } from '../../../lab/packages.ts';
import { Errno, errnoMessage } from '../../../src/abi/errno.ts';
import { decodeDevice, encodeDevice } from '../../../src/abi/kdev_t.ts';
import type { Fields, Struct } from '../../../src/abi/struct.ts';
import { NR } from '../../../src/abi/unistd.ts';

interface Header {
  readonly module: string;
  readonly includes: readonly string[];
  /** What C calls a struct that is not `struct NAME`, and fields that have another name there. */
  readonly structs?: Readonly<
    Record<string, { readonly type?: string; readonly fields?: Readonly<Record<string, string>> }>
  >;
  /** Ours, not in a header of user space. */
  readonly without?: readonly string[];
}

const syscallInfo = {
  type: 'struct ptrace_syscall_info',
  // Carved out of `pad` in Linux 6.16.
  fields: { reserved: '', flags: '', nr: 'entry.nr', args: 'entry.args', rval: 'exit.rval', is_error: 'exit.is_error' },
};

const machineContext = Object.fromEntries(
  (
    'r8 r9 r10 r11 r12 r13 r14 r15 rdi rsi rbp rbx rdx rax rcx rsp rip eflags cs gs fs ss ' +
    'err trapno oldmask cr2 fpstate reserved1'
  )
    .split(' ')
    .map((field) => [field, `uc_mcontext.${field}`]),
);

const typedefs = (...names: string[]) => Object.fromEntries(names.map((name) => [name, { type: name }]));

const headers: readonly Header[] = [
  {
    module: 'bootparam',
    includes: ['asm/bootparam.h'],
    // From boot.rst and headers of the kernel's own.
    without: [
      ...['SETUP_HEADER_MAGIC', 'BOOT_FLAG', 'LOADER_TYPE_UNDEFINED', 'SETUP_HEADER_OFFSET', 'SETUP_HEADER_JUMP_END'],
      ...['EFI64_LOADER_SIGNATURE', 'efi_setup_data', 'efi_memory_desc'],
    ],
  },
  { module: 'capability', includes: ['linux/capability.h'] },
  { module: 'fiemap', includes: ['linux/fiemap.h'] },
  { module: 'pageflags', includes: ['linux/kernel-page-flags.h'] },
  {
    module: 'elf',
    includes: ['elf.h'],
    structs: {
      ...typedefs('Elf64_Ehdr', 'Elf64_Phdr', 'Elf64_Shdr', 'Elf64_Sym', 'Elf64_Nhdr'),
      Elf64_Dyn: { type: 'Elf64_Dyn', fields: { d_val: 'd_un.d_val' } },
    },
  },
  // linux/elfcore.h cannot be included beside the C library's headers, which have the same structs.
  {
    module: 'elfcore',
    includes: ['sys/procfs.h'],
    structs: {
      elf_prstatus: {
        fields: { si_signo: 'pr_info.si_signo', si_code: 'pr_info.si_code', si_errno: 'pr_info.si_errno' },
      },
    },
  },
  { module: 'eventpoll', includes: ['linux/eventpoll.h', 'linux/timerfd.h', 'sys/eventfd.h'] },
  {
    module: 'fcntl',
    includes: ['linux/fcntl.h', 'linux/openat2.h', 'linux/falloc.h', 'linux/close_range.h', 'linux/fs.h'],
    // include/linux/splice.h and struct file_handle of include/linux/fs.h: the C library declares them again.
    without: ['SPLICE_F_MOVE', 'SPLICE_F_NONBLOCK', 'SPLICE_F_MORE', 'SPLICE_F_GIFT', 'MAX_HANDLE_SZ', 'file_handle'],
  },
  { module: 'fs', includes: ['linux/fs.h', 'linux/fiemap.h'] },
  { module: 'futex', includes: ['linux/futex.h'] },
  { module: 'inet_diag', includes: ['linux/inet_diag.h'] },
  { module: 'io_uring', includes: ['linux/io_uring.h'], without: ['SIZEOF_CQE', 'SIZEOF_SQE', 'SQE_FLAGS_AT'] },
  { module: 'inotify', includes: ['linux/inotify.h'] },
  { module: 'ioprio', includes: ['linux/ioprio.h'] },
  {
    module: 'ipc',
    includes: ['linux/ipc.h', 'linux/shm.h', 'linux/msg.h', 'linux/sem.h'],
    // Of include/linux/shm.h; and padding.
    without: ['SHM_DEST', 'ipc64_perm'],
  },
  { module: 'kcmp', includes: ['linux/kcmp.h'] },
  { module: 'kexec', includes: ['linux/kexec.h'] },
  { module: 'mman', includes: ['linux/mman.h', 'linux/memfd.h'] },
  { module: 'loop', includes: ['linux/loop.h'] },
  // Of the kernel's own linux/fs.h.
  { module: 'mount', includes: ['linux/fcntl.h', 'linux/mount.h'], without: ['MNT_DETACH'] },
  {
    module: 'nf_tables',
    includes: ['linux/netlink.h', 'linux/netfilter.h', 'linux/netfilter/nfnetlink.h', 'linux/netfilter/nf_tables.h'],
  },
  {
    module: 'netlink',
    includes: ['sys/socket.h', 'linux/netlink.h'],
    // An int with all upper bits there.
    without: ['NLA_TYPE_MASK'],
  },
  { module: 'pidfd', includes: ['linux/pidfd.h'] },
  { module: 'poll', includes: ['poll.h', 'asm/ioctls.h'] },
  { module: 'prctl', includes: ['linux/prctl.h', 'asm/prctl.h'] },
  {
    module: 'ptrace',
    includes: ['sys/user.h', 'linux/ptrace.h', 'linux/elf.h'],
    structs: { ptrace_syscall_info_entry: syscallInfo, ptrace_syscall_info_exit: syscallInfo },
  },
  { module: 'reboot', includes: ['linux/reboot.h'] },
  { module: 'resource', includes: ['linux/resource.h'] },
  { module: 'rseq', includes: ['linux/rseq.h'] },
  { module: 'sched', includes: ['linux/sched.h', 'linux/sched/types.h'] },
  {
    module: 'signal',
    includes: ['linux/signal.h', 'asm/sigcontext.h', 'asm/ucontext.h'],
    structs: {
      stack_t: { type: 'stack_t' },
      siginfo: { type: 'siginfo_t' },
      siginfo_sigchld: { type: 'siginfo_t' },
      ucontext: { fields: machineContext },
    },
    without: ['_NSIG', 'SW_BYTES_AT'],
  },
  {
    module: 'rtnetlink',
    includes: [
      'linux/rtnetlink.h',
      'linux/if_link.h',
      'linux/if_addr.h',
      'linux/neighbour.h',
      'linux/if.h',
      'linux/veth.h',
    ],
    // Newer than the headers of some systems.
    without: ['IFLA_BR_FDB_N_LEARNED'],
  },
  {
    module: 'seccomp',
    includes: ['linux/seccomp.h', 'linux/filter.h'],
    structs: { sock_fprog: { fields: { __pad1: '', __pad2: '' } } },
  },
  { module: 'sock_diag', includes: ['linux/sock_diag.h'] },
  {
    module: 'socket',
    includes: [
      'sys/socket.h',
      'netinet/in.h',
      'netinet/udp.h',
      'net/if.h',
      'sys/un.h',
      'sys/ioctl.h',
      'linux/sockios.h',
      'linux/filter.h',
    ],
    structs: {
      sockaddr_in: { fields: { __pad: 'sin_zero' } },
      ifreq: { fields: { ifr_rest: '' } },
    },
    // include/uapi/linux/un.h, linux/icmp.h and icmpv6.h, which the C library has in its own words.
    without: ['SIOCUNIXFILE', 'ICMP_FILTER', 'ICMPV6_FILTER'],
  },
  { module: 'stat', includes: ['linux/stat.h'] },
  { module: 'statfs', includes: ['asm/statfs.h', 'linux/magic.h'] },
  // include/net/tcp_states.h is the kernel's own; the C library has the states again.
  {
    module: 'tcp',
    includes: ['netinet/tcp.h'],
    // include/net/tcp.h is the kernel's own.
    without: ['TCPOPT_MSS', 'TCPOPT_SACK_PERM', 'TCP_REPAIR_OFF_NO_WP', 'TCPI_SEGS_OUT_AT'],
    // Bit fields.
    structs: { tcp_info: { fields: { tcpi_wscale: '', tcpi_flags: '' } } },
  },
  {
    module: 'time',
    includes: ['linux/time.h', 'linux/time_types.h'],
    structs: { timespec: { type: 'struct __kernel_timespec' } },
  },
  { module: 'termios', includes: ['asm/termios.h', 'linux/tty.h'] },
  { module: 'uio', includes: ['linux/uio.h'] },
  { module: 'unix_diag', includes: ['linux/unix_diag.h'] },
  {
    module: 'userfaultfd',
    includes: ['linux/ioctl.h', 'linux/userfaultfd.h'],
    structs: {
      uffd_msg_pagefault: {
        type: 'struct uffd_msg',
        fields: { flags: 'arg.pagefault.flags', address: 'arg.pagefault.address', ptid: 'arg.pagefault.feat.ptid' },
      },
      uffd_msg_fork: {
        type: 'struct uffd_msg',
        fields: { reserved1: 'reserved1', ufd: 'arg.fork.ufd' },
      },
      uffd_msg_remap: {
        type: 'struct uffd_msg',
        fields: { from: 'arg.remap.from', to: 'arg.remap.to', len: 'arg.remap.len' },
      },
    },
  },
  { module: 'wait', includes: ['linux/wait.h'] },
];

/**
 * Without a header of user space: e820 is the kernel's own. Errors, numbers of devices and system calls have tests of
 * their own below.
 */
const others = new Set(['e820', 'errno', 'elfheaders', 'elfnote', 'kdev_t', 'struct', 'printable', 'text', 'unistd']);

/** Missing in the headers of Linux 6.1, which Debian 12 installs. A struct that is missing is missing with its fields. */
const newer = new RegExp(
  `^(${[
    'AT_HANDLE_FID|F_DUPFD_QUERY|F_SEAL_EXEC|MFD_EXEC|MFD_NOEXEC_SEAL|STATX_MNT_ID_UNIQUE|SCHED_EXT',
    'PAGEMAP_SCAN|PAGE_IS_\\w+|PM_SCAN_\\w+|.*struct page_region.*|.*struct pm_scan_arg.*|MADV_GUARD_\\w+',
    'SETUP_KEXEC_KHO|.*struct kho_data.*',
    'KEXEC_(UPDATE_ELFCOREHDR|CRASH_HOTPLUG_SUPPORT|FILE_DEBUG|FILE_NO_CMA)',
    'PIDFD_(THREAD|SIGNAL_\\w+)|ARCH_SHSTK_\\w+|NT_X86_SHSTK|PTRACE_[GS]ET_SYSCALL_USER_DISPATCH_CONFIG|.*ptrace_sud_config.*',
    'PR_[GS]ET_MDWE|PR_[GS]ET_MEMORY_MERGE|PR_TIMER_CREATE_RESTORE_IDS\\w*|.*struct rseq, (node_id|mm_cid).*',
    'MAP_DROPPABLE|UFFDIO_(MOVE|POISON)|UFFD_FEATURE_(MOVE|POISON|WP_ASYNC|WP_UNPOPULATED)',
  ].join('|')})$`,
);

let folder: string;
before(async () => {
  await requirePackages('kernel build');
  folder = mkdtempSync(join(tmpdir(), 'tideover-headers-'));
  process.once('exit', () => rmSync(folder, { recursive: true, force: true }));
});

for (const header of headers) {
  test(`src/abi/${header.module}.ts is what ${header.includes.join(', ')} say`, async () => {
    const module: Record<string, unknown> = await import(`../../../src/abi/${header.module}.ts`);
    const ours = new Map<string, bigint>();
    for (const [name, value] of Object.entries(module)) {
      if (header.without?.includes(name)) continue;
      if (typeof value === 'number' || typeof value === 'bigint') ours.set(name, BigInt(value));
      else if (isStruct(value)) for (const [what, is] of layout(name, value, header)) ours.set(what, BigInt(is));
    }
    assert.ok(ours.size > 0);
    const theirs = evaluate(header, [...ours.keys()]);
    for (const [what, value] of ours) {
      if (!theirs.has(what)) assert.ok(newer.test(what), `${what} is in no installed header`);
      // The same bits: C's constants have signs and sizes of their own.
      else assert.ok(sameBits(value, theirs.get(what)!), `${what}: ${value} here, ${theirs.get(what)} there`);
    }
  });
}

test('every header of src/abi is compared', () => {
  const modules = readdirSync(new URL('../../../src/abi', import.meta.url)).map((name) => name.replace(/\.ts$/, ''));
  const compared = new Set(headers.map(({ module }) => module));
  assert.deepEqual(
    modules.filter((name) => !compared.has(name) && !others.has(name)),
    [],
  );
});

test('src/abi/errno.ts has the numbers and texts of the C library', () => {
  const names = Object.keys(Errno).filter((name) => name !== 'ENOTSUPP');
  const lines = names.map((name) => `  printf("${name} %d %s\\n", ${name}, strerror(${name}));`).join('\n');
  const source = join(folder, 'errno.c');
  writeFileSync(source, `#include <errno.h>\n#include <stdio.h>\n#include <string.h>\nint main(void) {\n${lines}\n}\n`);
  execFileSync('gcc', ['-o', join(folder, 'errno'), source]);
  const theirs = execFileSync(join(folder, 'errno'), { encoding: 'utf8', env: { LC_ALL: 'C' } });
  const ours = Object.entries(Errno).filter(([name]) => name !== 'ENOTSUPP');
  assert.equal(theirs, ours.map(([name, number]) => `${name} ${number} ${errnoMessage(number)}\n`).join(''));
});

test('src/abi/kdev_t.ts encodes numbers of devices as makedev(3) and mknod(2) do', () => {
  const devices = [0, 1, 8, 136, 0xfff].flatMap((major) => [0, 3, 255, 256, 0xfffff].map((minor) => [major, minor]));
  const lines = devices.map(
    ([major, minor]) => `  printf("%llu\\n", (unsigned long long)makedev(${major}, ${minor}));`,
  );
  const [source, program] = [join(folder, 'device.c'), join(folder, 'device')];
  writeFileSync(source, `#include <stdio.h>\n#include <sys/sysmacros.h>\nint main(void) {\n${lines.join('\n')}\n}\n`);
  execFileSync('gcc', ['-o', program, source]);
  const theirs = execFileSync(program, { encoding: 'utf8' }).trim().split('\n').map(Number);
  assert.deepEqual(
    devices.map(([major, minor]) => encodeDevice(major!, minor!)),
    theirs,
  );
  assert.deepEqual(
    theirs.map(decodeDevice),
    devices.map(([major, minor]) => ({ major, minor })),
  );
});

test('src/abi/unistd.ts has the numbers of asm/unistd_64.h', () => {
  const source = '#include <asm/unistd_64.h>\n';
  const macros = execFileSync('gcc', ['-E', '-dM', '-'], { input: source, encoding: 'utf8' });
  const theirs = new Map(
    [...macros.matchAll(/^#define __NR_(\w+) (\d+)$/gm)].map(([, name, number]) => [name!, Number(number)]),
  );
  assert.ok(theirs.size > 300);
  for (const [name, number] of theirs) assert.equal(NR[name as keyof typeof NR], number, name);
});

test('each system call of src/sys has its number', async () => {
  const modules = readdirSync(new URL('../../../src/sys', import.meta.url)).filter((name) => name.endsWith('.ts'));
  let seen = 0;
  for (const module of modules) {
    const exports: Record<string, unknown> = await import(`../../../src/sys/${module}`);
    for (const [name, value] of Object.entries(exports)) {
      if (typeof value !== 'function' || !('attempt' in value) || !('number' in value)) continue;
      const expected = NR[(name === 'uffdio' ? 'ioctl' : name) as keyof typeof NR];
      assert.equal(value.number, expected, `${name} of src/sys/${module}`);
      seen++;
    }
  }
  assert.ok(seen > 70, `${seen} system calls`);
});

function isStruct(value: unknown): value is Struct<Fields> {
  return typeof value === 'object' && value !== null && 'offsets' in value;
}

/** C expressions for the size and offsets of a struct, with our values. */
function layout(name: string, struct: Struct<Fields>, header: Header): [string, number][] {
  const { type = `struct ${struct.name}`, fields = {} } = header.structs?.[name] ?? {};
  const found: [string, number][] = [];
  // A union's other members may be longer.
  if (!Object.values(fields).some((field) => field.includes('.')) && name !== 'siginfo_sigchld' && name !== 'rseq') {
    found.push([`sizeof(${type})`, struct.size]);
  }
  for (const [field, offset] of Object.entries(struct.offsets)) {
    const there = fields[field] ?? field;
    // Padding has no name there or another one, and what is spare becomes less.
    if (there !== '' && !/^__(pad|spare)/.test(there)) found.push([`__builtin_offsetof(${type}, ${there})`, offset]);
  }
  return found;
}

/** Values of C expressions; those that gcc does not know are left out. */
function evaluate(header: Header, expressions: readonly string[]): Map<string, bigint> {
  const unknown = new Set<number>();
  const source = join(folder, `${header.module}.c`);
  const program = join(folder, header.module);
  for (;;) {
    const lines = expressions.map((expression, i) =>
      unknown.has(i) ? '' : `  printf("${i} %lld\\n", (long long)(${expression}));`,
    );
    const head = header.includes.map((include) => `#include <${include}>`).join('\n');
    const first = header.includes.length + 3;
    writeFileSync(source, `${head}\nint printf(const char *, ...);\nint main(void) {\n${lines.join('\n')}\n}\n`);
    const { status, stderr } = spawnSync('gcc', ['-w', '-o', program, source], { encoding: 'utf8' });
    if (status === 0) break;
    const failed = [...stderr.matchAll(/\.c:(\d+):\d+: error:/g)].map((match) => Number(match[1]) - first);
    assert.ok(failed.length > 0 && failed.every((i) => i >= 0 && i < expressions.length), stderr);
    for (const i of failed) unknown.add(i);
  }
  const output = execFileSync(program, { encoding: 'utf8' });
  return new Map(
    output
      .trimEnd()
      .split('\n')
      .filter((line) => line !== '')
      .map((line) => [expressions[Number(line.split(' ')[0])]!, BigInt(line.split(' ')[1]!)]),
  );
}

function sameBits(ours: bigint, theirs: bigint): boolean {
  const bits = theirs < 0n && theirs >= -(2n ** 31n) && ours >= 0n && ours < 2n ** 32n ? 32 : 64;
  return BigInt.asUintN(bits, ours) === BigInt.asUintN(bits, theirs);
}
