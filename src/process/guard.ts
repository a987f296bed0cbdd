/**
 * Letting go of a tree takes as many calls as it has threads. Between the first and the last of them tideover may be killed, and
 * the processes that it has let go of would go on without the others. So a process of ours, untraced and in a session of its
 * own, waits for our end meanwhile and kills them then. To take it away is the moment from which they are on their own.
 */

import { POLLIN, pollfd } from '../abi/poll.ts';
import { PR_SET_PDEATHSIG } from '../abi/prctl.ts';
import { CLONE_CLEAR_SIGHAND, CLONE_VM } from '../abi/sched.ts';
import { SIGCHLD, SIGKILL, SIGURG } from '../abi/signal.ts';
import { NR } from '../abi/unistd.ts';
import { batch_record } from '../asm/batch.ts';
import { clone3 } from '../sys/clone.ts';
import { endIdle } from './idle.ts';
import { Remote, Scratch, type SlotLayout, scratchSize } from './remote.ts';
import { makeScratch } from './tree.ts';

const PAGE = 4096;
const ADDRESS = 0x1000_0000;

/**
 * @param pids of processes that are stopped now, and are to go on all or none
 * @returns takes the guard away
 */
export function guardOver(pids: readonly number[]): () => void {
  const records = Math.ceil(((pids.length + 8) * batch_record.size) / PAGE) * PAGE;
  const layout: SlotLayout = { frame: 0, records, data: PAGE };
  const flags = CLONE_VM | CLONE_CLEAR_SIGHAND;
  const tracee = makeScratch(() => clone3({ flags, exit_signal: SIGCHLD, pdeath_sig: SIGKILL }).pid, {
    address: ADDRESS,
    size: scratchSize(layout, 1),
  });
  const { pid } = tracee;
  try {
    using scratch = new Scratch(pid, ADDRESS, layout, 1, SIGURG);
    scratch.install();
    tracee.blockSignals(SIGURG);
    const remote = new Remote(tracee, scratch, 0);
    remote.call(NR.close_range, 0, 0xffff_ffff, 0);
    remote.call(NR.setsid);
    const us = remote.call(NR.pidfd_open, process.pid, 0);
    const them = pids.map((each) => remote.call(NR.pidfd_open, each, 0));
    // It dies with us as long as it is traced, and is to outlive us then.
    remote.call(NR.prctl, PR_SET_PDEATHSIG, 0, 0, 0, 0);
    remote.run();
    const descriptors = them.map((index) => remote.result(index));
    const fd = remote.result(us);
    remote.call(NR.poll, remote.put(pollfd.write({ fd, events: POLLIN, revents: 0 })), 1, -1);
    for (const descriptor of descriptors) remote.attempt(NR.pidfd_send_signal, descriptor, SIGKILL, 0, 0);
    remote.call(NR.exit_group, 0);
    remote.sendOff();
  } catch (error) {
    endIdle(pid);
    throw error;
  }
  return () => endIdle(pid);
}
