/** A verdict as plain values for programs: addresses are hexadecimal texts, tasks are named by pid, comm and address. */
import type { Task } from '../kernel/tasks.ts';
import type { CallFrame, CrashSite, Evidence, Verdict } from './verdict.ts';

export function verdictJson({ headline, findings, crash, waits, signature, taint, modules }: Verdict) {
  return {
    headline,
    cause: findings[0]?.kind ?? null,
    signature: signature ?? null,
    taint,
    modules,
    crash: crash === undefined ? null : crashJson(crash),
    findings: findings.map((finding) => ({ ...finding, evidence: finding.evidence.map(evidenceJson) })),
    locks: waits.locks.map(({ address, kind, symbol, state, holders }) => ({
      address: hex(address),
      kind,
      symbol: symbol ?? null,
      state,
      holders: holders.map(({ task, proof }) => ({ ...taskJson(task), proof })),
    })),
    waits: waits.waits.map(({ task, lock, wanted, waiter, taker, caller, seconds }) => ({
      ...taskJson(task),
      lock: hex(lock),
      wanted,
      waiter: hex(waiter),
      taker,
      caller: caller ?? null,
      seconds: seconds ?? null,
    })),
    deadlocks: waits.cycles.map((cycle) => cycle.map(({ task, lock }) => ({ ...taskJson(task), lock: hex(lock) }))),
  };
}

function crashJson({ task, cpu, frames, end, fault }: CrashSite) {
  return {
    ...taskJson(task),
    cpu,
    frames: frames.map(frameJson),
    end,
    fault:
      fault === undefined
        ? null
        : {
            ...frameJson(fault.at),
            instruction: fault.instruction ?? null,
            bytes: fault.bytes === undefined ? null : [...fault.bytes].map(twoDigits).join(''),
            entry: fault.entry ?? null,
            address: fault.address === undefined ? null : hex(fault.address),
            registers: Object.fromEntries(Object.entries(fault.registers).map(([name, value]) => [name, hex(value)])),
          },
  };
}

function frameJson({ pc, symbol, offset, module, interrupted }: CallFrame) {
  return {
    pc: hex(pc),
    symbol: symbol || null,
    offset: symbol === '' ? null : offset,
    module: module ?? null,
    ...(interrupted && { interrupted }),
  };
}

function evidenceJson(evidence: Evidence) {
  switch (evidence.kind) {
    case 'address':
      return { address: hex(evidence.address), what: evidence.what };
    case 'task':
      return { ...taskJson(evidence.task), what: evidence.what };
    case 'log':
      return { time: Number(evidence.time) / 1e9, log: evidence.text };
  }
}

function taskJson({ pid, comm, address }: Task) {
  return { pid, comm, task: hex(address) };
}

function hex(address: bigint): string {
  return `0x${address.toString(16)}`;
}

function twoDigits(byte: number): string {
  return byte.toString(16).padStart(2, '0');
}
