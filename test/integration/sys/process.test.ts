import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { fstatSync } from 'node:fs';
import { test } from 'node:test';
import { CAP_SYS_ADMIN } from '../../../src/abi/capability.ts';
import { Errno } from '../../../src/abi/errno.ts';
import { KCMP_FILE, KCMP_FILES, KCMP_VM } from '../../../src/abi/kcmp.ts';
import { POLLIN } from '../../../src/abi/poll.ts';
import {
  PR_GET_DUMPABLE,
  PR_GET_NAME,
  PR_SET_MM,
  PR_SET_MM_MAP_SIZE,
  PR_SET_NAME,
  prctl_mm_map,
} from '../../../src/abi/prctl.ts';
import { RLIMIT_NOFILE, rlimit64 } from '../../../src/abi/resource.ts';
import { CLONE_CLEAR_SIGHAND, CLONE_PIDFD, CLONE_VM, SCHED_NORMAL, sched_attr } from '../../../src/abi/sched.ts';
import { CLD_KILLED, SIGCHLD, SIGKILL, SIGWINCH, siginfo, siginfo_sigchld } from '../../../src/abi/signal.ts';
import { P_PIDFD, WEXITED } from '../../../src/abi/wait.ts';
import { capabilities, hasCapability } from '../../../src/sys/capability.ts';
import { clone3 } from '../../../src/sys/clone.ts';
import { close } from '../../../src/sys/files.ts';
import { NotedSignals } from '../../../src/sys/interrupt.ts';
import { readIomem } from '../../../src/sys/iomem.ts';
import { cgroup2Mount, readMountinfo } from '../../../src/sys/mountinfo.ts';
import { poll } from '../../../src/sys/poll.ts';
import { readProcText } from '../../../src/sys/proc.ts';
import * as sys from '../../../src/sys/process.ts';
import { readStat, readStatus } from '../../../src/sys/stat.ts';
import { until } from '../patience.ts';
import { startTarget } from './target.ts';

const isRoot = process.getuid!() === 0;

/** Kills and reaps; what waitid(2) says of it. */
function end(pidfd: number) {
  sys.pidfd_send_signal({ pidfd, sig: SIGKILL, info: 0, flags: 0 });
  const infop = new Uint8Array(siginfo.size);
  sys.waitid({ idtype: P_PIDFD, id: pidfd, infop, options: WEXITED, rusage: 0 });
  close({ fd: pidfd });
  return siginfo_sigchld.read(infop);
}

test('kcmp tells shared objects from equal ones', async (t) => {
  const { pid, pipe } = await startTarget(t);
  const compare = (type: number, idx1 = 0, idx2 = 0) => sys.kcmp({ pid1: pid, pid2: pid, type, idx1, idx2 });
  assert.equal(compare(KCMP_FILE, pipe[0], pipe[2]), 0);
  assert.notEqual(compare(KCMP_FILE, pipe[0], pipe[1]), 0);
  assert.equal(compare(KCMP_FILES), 0);
  assert.notEqual(sys.kcmp({ pid1: pid, pid2: process.pid, type: KCMP_VM, idx1: 0, idx2: 0 }), 0);
  assert.throws(
    () => compare(KCMP_FILE, 99_999, pipe[0]),
    /^SyscallError: kcmp\(pid1=\d+, pid2=\d+, type=KCMP_FILE, idx1=0x1869f, idx2=0x[0-9a-f]+\): EBADF/,
  );
});

test("pidfd_getfd takes a copy of another's descriptor", async (t) => {
  const { pid, pipe } = await startTarget(t);
  const pidfd = sys.pidfd_open({ pid, flags: 0 });
  const fd = sys.pidfd_getfd({ pidfd, targetfd: pipe[1], flags: 0 });
  assert.ok(fstatSync(fd).isFIFO());
  assert.equal(sys.kcmp({ pid1: pid, pid2: process.pid, type: KCMP_FILE, idx1: pipe[1], idx2: fd }), 0);
  assert.throws(() => sys.pidfd_getfd({ pidfd, targetfd: 99_999, flags: 0 }), /EBADF/);
  close({ fd });
  close({ fd: pidfd });
});

test('clone3 makes a child, and waitid on its pidfd tells how it ended', () => {
  const { pid, pidfd } = clone3({ flags: CLONE_VM + CLONE_CLEAR_SIGHAND + CLONE_PIDFD, exit_signal: SIGCHLD });
  const stat = readStat(pid);
  assert.deepEqual([stat.pid, stat.ppid, stat.exit_signal], [pid, process.pid, SIGCHLD]);
  const info = end(pidfd!);
  assert.deepEqual([info.si_signo, info.si_code, info.si_pid, info.si_status], [SIGCHLD, CLD_KILLED, pid, SIGKILL]);
});

test('a child of clone3 with a pdeath_sig ends with a parent that is killed, one without it does not', async (t) => {
  const makeTwo = `
    import { clone3 } from ${JSON.stringify(import.meta.resolve('../../../src/sys/clone.ts'))};
    const make = (pdeath_sig) => clone3({ flags: ${CLONE_VM + CLONE_CLEAR_SIGHAND}, exit_signal: 0, pdeath_sig }).pid;
    console.log(JSON.stringify([make(${SIGKILL}), make(0)]));
    setInterval(() => {}, 1000);`;
  const parent = spawn(process.execPath, ['--input-type=module', '-e', makeTwo], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  t.after(() => parent.kill('SIGKILL'));
  const [line] = (await once(parent.stdout, 'data')) as [Buffer];
  const pids = JSON.parse(line.toString()) as [number, number];
  const [bound, free] = pids.map((pid) => sys.pidfd_open({ pid, flags: 0 })) as [number, number];
  t.after(() => {
    for (const pidfd of [bound, free]) {
      sys.pidfd_send_signal.attempt({ pidfd, sig: SIGKILL, info: 0, flags: 0 });
      close({ fd: pidfd });
    }
  });
  assert.deepEqual([poll(bound, POLLIN), poll(free, POLLIN)], [0, 0]);
  parent.kill('SIGKILL');
  await until(() => poll(bound, POLLIN) !== 0, 'it does not end');
  assert.equal(poll(bound, POLLIN) & POLLIN, POLLIN);
  assert.equal(poll(free, POLLIN), 0);
});

test('clone3 gives the child the id that is asked for', {
  skip: !isRoot && 'set_tid needs CAP_CHECKPOINT_RESTORE',
}, () => {
  const flags = CLONE_VM + CLONE_CLEAR_SIGHAND + CLONE_PIDFD;
  const highest = Number(readProcText('/proc/sys/kernel/pid_max'));
  for (let attempt = 0; ; attempt++) {
    const wanted = Math.floor(highest * (0.5 + Math.random() / 2));
    let child: ReturnType<typeof clone3>;
    try {
      child = clone3({ flags, exit_signal: SIGCHLD, set_tid: [wanted] });
    } catch (error) {
      // Somebody has it already.
      if ((error as { errno?: number }).errno === Errno.EEXIST && attempt < 50) continue;
      throw error;
    }
    assert.equal(child.pid, wanted);
    const taken = `clone3\\(flags=CLONE_VM\\|CLONE_CLEAR_SIGHAND, exit_signal=SIGCHLD, set_tid=\\[${wanted}\\]\\): EEXIST`;
    const again = { flags: CLONE_VM + CLONE_CLEAR_SIGHAND, exit_signal: SIGCHLD, set_tid: [wanted] };
    try {
      assert.throws(() => clone3(again), new RegExp(taken));
    } finally {
      end(child.pidfd!);
    }
    return;
  }
});

test('prctl takes numbers and buffers', () => {
  const before = new Uint8Array(16);
  sys.prctl({ option: PR_GET_NAME, arg2: before, arg3: 0, arg4: 0, arg5: 0 });
  sys.prctl({ option: PR_SET_NAME, arg2: Buffer.from('na me) (\0'), arg3: 0, arg4: 0, arg5: 0 });
  assert.equal(readStat(process.pid).comm, 'na me) (');
  assert.equal(readStatus('self').Name, 'na me) (');
  sys.prctl({ option: PR_SET_NAME, arg2: Buffer.from('a\nb\\c\0'), arg3: 0, arg4: 0, arg5: 0 });
  assert.equal(readStat('self').comm, 'a\nb\\c');
  assert.equal(readStatus('self').Name, 'a\nb\\c');
  sys.prctl({ option: PR_SET_NAME, arg2: before, arg3: 0, arg4: 0, arg5: 0 });
  assert.equal(sys.prctl({ option: PR_GET_DUMPABLE, arg2: 0, arg3: 0, arg4: 0, arg5: 0 }), 1);
  const size = new Uint8Array(4);
  const result = sys.prctl.attempt({ option: PR_SET_MM, arg2: PR_SET_MM_MAP_SIZE, arg3: size, arg4: 0, arg5: 0 });
  // EINVAL without CONFIG_CHECKPOINT_RESTORE.
  if (result === 0) assert.equal(new DataView(size.buffer).getUint32(0, true), prctl_mm_map.size);
  else assert.equal(result, -Errno.EINVAL);
});

test('limits and scheduling of another process are read', async (t) => {
  const { pid } = await startTarget(t);
  const limit = new Uint8Array(rlimit64.size);
  sys.prlimit64({ pid, resource: RLIMIT_NOFILE, new_limit: 0, old_limit: limit });
  const [, soft, hard] = /Max open files +(\d+) +(\d+)/.exec(readProcText(`/proc/${pid}/limits`))!;
  assert.deepEqual(rlimit64.read(limit), { rlim_cur: BigInt(soft!), rlim_max: BigInt(hard!) });
  const attr = new Uint8Array(sched_attr.size);
  sys.sched_getattr({ pid, attr, size: attr.length, flags: 0 });
  const { sched_policy, sched_nice } = sched_attr.read(attr);
  assert.deepEqual([sched_policy, sched_nice], [SCHED_NORMAL, readStat(pid).nice]);
});

test('status of a process says what its capabilities and ids are', () => {
  const status = readStatus(process.pid);
  const { effective, permitted, inheritable } = capabilities();
  assert.deepEqual([effective, permitted, inheritable], [status.CapEff, status.CapPrm, status.CapInh]);
  assert.equal(hasCapability(CAP_SYS_ADMIN), ((status.CapEff >> BigInt(CAP_SYS_ADMIN)) & 1n) === 1n);
  assert.deepEqual(status.Uid.slice(0, 2), [process.getuid!(), process.geteuid!()]);
  assert.equal(status.Pid, process.pid);
  assert.equal(status.NSpid.at(-1), process.pid);
  assert.deepEqual(
    [sys.getsid({ pid: 0 }), sys.getpgid({ pid: 0 })],
    [readStat('self').session, readStat('self').pgrp],
  );
});

test('the mounts of this process have a root, and what is found as cgroup v2 is one', () => {
  const mounts = readMountinfo('self');
  assert.ok(mounts.some(({ mountPoint }) => mountPoint === '/'));
  const cgroup = cgroup2Mount(mounts);
  if (cgroup !== undefined) assert.match(readProcText(`${cgroup.mountPoint}/cgroup.controllers`), /^[a-z_ ]*\n$/);
});

test('the map of physical memory has all memory in it, or says who may see it', () => {
  if (!hasCapability(CAP_SYS_ADMIN)) return assert.throws(readIomem, /run as root/);
  const ram = readIomem().filter(({ name }) => name === 'System RAM');
  const total = ram.reduce((sum, { start, end }) => sum + end - start, 0);
  const memTotal = Number(/MemTotal: +(\d+) kB/.exec(readProcText('/proc/meminfo'))![1]) * 1024;
  assert.ok(total >= memTotal, `${total} bytes of RAM, ${memTotal} in use`);
});

test('a signal that is noted during work comes to whoever handles it afterwards', async () => {
  const handled = once(process, 'SIGWINCH');
  {
    using noted = new NotedSignals([SIGWINCH]);
    assert.equal(noted.seen, false);
    process.kill(process.pid, 'SIGWINCH');
    while (!noted.seen);
  }
  assert.equal((await handled)[0], 'SIGWINCH');
});

test('a file that is not there is an error that names it', () => {
  assert.throws(() => readStat(0x7fff_fff0), /openat\(.*pathname="\/proc\/2147483632\/stat".*ENOENT/);
});
