/**
 * What tracing allows, tried on a child that does nothing: it pauses, shares the memory (so that making it costs
 * nothing), and dies with its tracer.
 */

import { CAP_SYS_PTRACE } from '../../abi/capability.ts';
import { errnoName } from '../../abi/errno.ts';
import {
  NT_X86_XSTATE,
  PTRACE_GET_RSEQ_CONFIGURATION,
  PTRACE_O_EXITKILL,
  PTRACE_O_SUSPEND_SECCOMP,
  PTRACE_SETOPTIONS,
} from '../../abi/ptrace.ts';
import { CLONE_CLEAR_SIGHAND, CLONE_VM } from '../../abi/sched.ts';
import { SIGKILL } from '../../abi/signal.ts';
import { __WALL } from '../../abi/wait.ts';
import { hasCapability } from '../capability.ts';
import { clone3 } from '../clone.ts';
import { kill, wait4 } from '../process.ts';
import { getRegset, interrupt, ptrace, seize, waitTracee } from '../ptrace.ts';
import { Region } from '../region.ts';
import { type Answer, no, partly, yes } from './answer.ts';
import { read } from './files.ts';

/** Time that a child may take to stop, in ms. */
const PATIENCE = 2000;

const NO_TRACING = 'allow ptrace: see the seccomp filter of a container and kernel.yama.ptrace_scope';

/** Lets `probe` look at a stopped tracee, if one can be had. */
function withTracee(probe: (pid: number) => Answer): Answer {
  const { pid } = clone3({ flags: CLONE_VM + CLONE_CLEAR_SIGHAND, exit_signal: 0, pdeath_sig: SIGKILL });
  try {
    seize(pid, PTRACE_O_EXITKILL);
    interrupt(pid);
    if (waitTracee(pid, PATIENCE) === undefined) return no('a child that was seized did not stop', NO_TRACING);
    return probe(pid);
  } finally {
    kill({ pid, sig: SIGKILL });
    wait4({ pid, wstatus: 0, options: __WALL, rusage: 0 });
  }
}

/** Whether a process can be stopped and seen by another one, and whose. */
export function ptraceScope(): Answer {
  const seized = seizesChild();
  if (seized !== true) return no(seized, NO_TRACING);
  const scope = read('/proc/sys/kernel/yama/ptrace_scope').text;
  const setting = scope === undefined ? 'no Yama' : `kernel.yama.ptrace_scope is ${scope}`;
  if (hasCapability(CAP_SYS_PTRACE) && scope !== '3') return yes(`a child was seized and stopped; ${setting}`);
  const whose = scope === undefined || scope === '0' ? 'other users' : 'any but its children';
  const reason = `a child was seized and stopped; without CAP_SYS_PTRACE not the processes of ${whose} (${setting})`;
  return partly(reason, 'run with CAP_SYS_PTRACE (as root)');
}

function seizesChild(): true | string {
  try {
    const answer = withTracee(() => yes(''));
    return answer.answer === 'yes' ? true : answer.reason;
  } catch (error) {
    return (error as Error).message;
  }
}

/** With it a process under a seccomp filter can be made to perform calls that its filter forbids. */
export function seccompSuspend(): Answer {
  return withTracee((pid) => {
    const options = PTRACE_O_EXITKILL | PTRACE_O_SUSPEND_SECCOMP;
    const result = ptrace.attempt({ request: PTRACE_SETOPTIONS, pid, addr: 0, data: options });
    if (result >= 0) return yes('PTRACE_O_SUSPEND_SECCOMP was set on a child');
    const tried = `PTRACE_O_SUSPEND_SECCOMP: ${errnoName(-result)}`;
    if (errnoName(-result) === 'EPERM') return no(tried, 'run with CAP_SYS_ADMIN, and not under a seccomp filter');
    return no(tried, 'a kernel with CONFIG_CHECKPOINT_RESTORE=y and CONFIG_SECCOMP=y');
  });
}

/** glibc registers a restartable sequence for each thread; a restored thread must get it back. */
export function rseqConfiguration(): Answer {
  return withTracee((pid) => {
    const data = new Uint8Array(24);
    const result = ptrace.attempt({ request: PTRACE_GET_RSEQ_CONFIGURATION, pid, addr: data.length, data });
    if (result >= 0) return yes('PTRACE_GET_RSEQ_CONFIGURATION was answered');
    return no(`PTRACE_GET_RSEQ_CONFIGURATION: ${errnoName(-result)}`, 'a kernel with CONFIG_RSEQ=y, 5.13 or later');
  });
}

/** How large the registers of a thread are (XSAVE area, Intel SDM volume 1, chapter 13), and what is in them. */
export function extendedState(): Answer {
  const area = new Region(64 * 1024);
  try {
    return withTracee((pid) => {
      const size = getRegset(pid, NT_X86_XSTATE, area.address, area.size);
      // XCR0 as the kernel hands it out in the software-reserved bytes: arch/x86/include/asm/user.h.
      const xfeatures = area.view.getBigUint64(464, true);
      return yes(`${size} bytes, components 0x${xfeatures.toString(16)} (${components(xfeatures)})`);
    });
  } finally {
    area[Symbol.dispose]();
  }
}

/** Bits of XCR0. */
const COMPONENTS: Readonly<Record<number, string>> = {
  0: 'x87',
  1: 'SSE',
  2: 'AVX',
  3: 'MPX',
  5: 'AVX-512',
  9: 'PKRU',
  11: 'shadow stack',
  18: 'AMX',
  19: 'APX',
};

function components(mask: bigint): string {
  const present = Object.entries(COMPONENTS).filter(([bit]) => ((mask >> BigInt(bit)) & 1n) === 1n);
  return present.map(([, name]) => name).join(', ');
}
