/** Starting the init of a workload: in a PID namespace of its own, with its descriptors, in its control group. */
import { createHash } from 'node:crypto';
import { closeSync, existsSync, mkdirSync, openSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Errno } from '../abi/errno.ts';
import { AT_FDCWD, F_DUPFD_CLOEXEC, O_NOCTTY, O_RDWR } from '../abi/fcntl.ts';
import { CLONE_CLEAR_SIGHAND, CLONE_INTO_CGROUP, CLONE_NEWPID, CLONE_PARENT, clone_args } from '../abi/sched.ts';
import { SIGCHLD } from '../abi/signal.ts';
import { TIOCGPTPEER, TIOCSPTLCK } from '../abi/termios.ts';
import { NR } from '../abi/unistd.ts';
import { Batch, batch_record } from '../asm/batch.ts';
import { INIT_SLAVE, initProgram } from '../asm/init.ts';
import { spawnCode } from '../asm/spawn.ts';
import { SyscallError, UnsupportedError } from '../errors.ts';
import { fcntl, ioctl, openat } from '../sys/files.ts';
import { cgroup2Mount, readMountinfo } from '../sys/mountinfo.ts';
import { mapCode, Region } from '../sys/region.ts';

/** Where its program lies: at the same place for every kernel, as a restore looks for it there. */
const PROGRAMS = '/var/lib/tideover';

export interface Launch {
  /** Path of the program. */
  readonly program: string;
  /** From argv[0] on. */
  readonly command: readonly string[];
  readonly environment: Readonly<Record<string, string | undefined>>;
  /** Descriptor of its output. */
  readonly output: number;
  readonly terminal: boolean;
  /** A child of our parent. */
  readonly sibling: boolean;
  /** Below the mount of control groups; undefined for that of this process. */
  readonly cgroup?: string | undefined;
}

/** Puts the init's program where a restore finds it. Needed before a workload is started or restored. @returns its path */
export function placeInit(): string {
  const program = initProgram();
  const digest = createHash('sha256').update(program).digest('hex').slice(0, 16);
  const path = join(PROGRAMS, `init-${digest}`);
  // A power cut may have left less of it.
  if (existsSync(path) && readFileSync(path).equals(program)) return path;
  mkdirSync(PROGRAMS, { recursive: true, mode: 0o755 });
  const made = `${path}.${process.pid}`;
  writeFileSync(made, program, { mode: 0o755, flush: true });
  renameSync(made, path);
  return path;
}

/** @returns process id of the init @throws SyscallError EPERM; UnsupportedError where the control group cannot be made */
export function launch(of: Launch): number {
  const terminal = of.terminal ? openTerminal() : [];
  const input = openSync('/dev/null', 'r');
  const cgroup = of.cgroup === undefined ? undefined : openGroup(of.cgroup);
  // Above the numbers that they are to have.
  const sources = [input, of.output, of.output, ...terminal].map((fd) =>
    fcntl({ fd, cmd: F_DUPFD_CLOEXEC, arg: INIT_SLAVE + 1 }),
  );
  try {
    return spawn(placeInit(), of, sources, cgroup);
  } finally {
    for (const fd of [...sources, ...terminal, input, ...(cgroup === undefined ? [] : [cgroup])]) closeSync(fd);
  }
}

/** @returns master and slave of a new pair */
function openTerminal(): number[] {
  const master = openat({ dirfd: AT_FDCWD, pathname: '/dev/ptmx', flags: O_RDWR | O_NOCTTY, mode: 0 });
  ioctl({ fd: master, request: TIOCSPTLCK, arg: new Uint8Array(4) });
  return [master, ioctl({ fd: master, request: TIOCGPTPEER, arg: O_RDWR | O_NOCTTY })];
}

function openGroup(name: string): number {
  const mount = cgroup2Mount(readMountinfo('self'));
  const what = `control group ${name}`;
  if (mount === undefined) {
    const remedy = 'mount it: mount -t cgroup2 none /sys/fs/cgroup';
    throw new UnsupportedError({ what, why: 'version 2 of control groups is mounted nowhere', remedy });
  }
  const folder = join(mount.mountPoint, name);
  try {
    mkdirSync(folder, { recursive: true });
    return openSync(folder, 'r');
  } catch (error) {
    throw new UnsupportedError({
      what,
      why: (error as Error).message,
      remedy: 'run it as root, in the first namespaces',
    });
  }
}

/** As much as the kernel takes for arguments and environment: _STK_LIM / 4 of fs/exec.c. */
const MAX_TEXT = 2 << 20;

/** @param sources descriptors that become 0, 1, 2 and those of the terminal */
function spawn(init: string, of: Launch, sources: readonly number[], cgroup: number | undefined): number {
  using records = new Region(batch_record.size * (sources.length + 3));
  using texts = new Region(MAX_TEXT);
  using args = new Region(clone_args.size);
  let end = 0;
  const put = (bytes: Uint8Array): number => {
    const at = end;
    end += Math.ceil(bytes.length / 8) * 8;
    if (end > MAX_TEXT) throw new SyscallError('execve', `execve(${of.program})`, Errno.E2BIG);
    texts.bytes.set(bytes, at);
    return texts.address + at;
  };
  const text = (value: string) => put(Buffer.from(`${value}\0`));
  const list = (values: readonly string[]) => {
    const pointers = BigUint64Array.from([...values.map((value) => BigInt(text(value))), 0n]);
    return put(new Uint8Array(pointers.buffer));
  };
  const environment = Object.entries(of.environment).filter(([, value]) => value !== undefined);
  const argv = list(['tideover-init', of.program, ...of.command]);
  const envp = list(environment.map(([name, value]) => `${name}=${value}`));
  const batch = new Batch(records.bytes);
  batch.addOrStop(NR.setsid);
  for (const [fd, source] of sources.entries()) batch.addOrStop(NR.dup3, source, fd, 0);
  batch.addOrStop(NR.close_range, sources.length, 0xffff_ffff, 0);
  batch.add(NR.execve, text(init), argv, envp);
  // Sums, as some of them lie above 32 bits. The child of a child's parent ends with that one's signal.
  const flags =
    CLONE_NEWPID +
    CLONE_CLEAR_SIGHAND +
    (of.sibling ? CLONE_PARENT : 0) +
    (cgroup === undefined ? 0 : CLONE_INTO_CGROUP);
  const exit_signal = of.sibling ? 0 : SIGCHLD;
  clone_args.write({ flags, exit_signal, cgroup: cgroup ?? 0 }, args.bytes);
  code ??= mapCode(spawnCode(), 4);
  const pid = code.call(args.address, clone_args.size, records.address, batch.length);
  if (pid < 0) throw new SyscallError('clone3', 'clone3(CLONE_NEWPID)', -pid);
  return pid;
}

let code: ReturnType<typeof mapCode> | undefined;
