/** What happened. */
import type { CrashSite, Evidence, Finding, Verdict } from '../../../crash/why/verdict.ts';
import type { Lock, Wait } from '../../../crash/why/waits.ts';
import { command } from '../../command.ts';
import type { View } from '../../io.ts';
import { dumpExits, hex, inputFlags, vmcore, withKernel } from '../../kernel.ts';
import { printableLine, wrap } from '../../text.ts';

export const why = command({
  name: 'why',
  summary:
    'Say what happened: of what the kernel died, in which code and task, who waits for whom, and what else was wrong',
  description: [
    'Every statement names its evidence: an address in the dump, a task, or a line of the log. The signature is the same for ' +
      'the same crash on another boot: it is made of the names of the functions that led there.',
    'With --json: {"headline", "cause", "signature": {"hash", "parts"}, "taint", "modules", "release", "version", "time", "uptime", ' +
      '"crash": {"pid", "comm", "task", "cpu", "frames": [{"pc", "symbol", "offset", "module", "interrupted"?}], "end", "fault": {"pc", "symbol", ' +
      '"offset", "module", "interrupted"?, "instruction", "bytes", "entry", "address", "registers"}}, "findings": [{"kind", "weight", "text", ' +
      '"details", "evidence"}], "locks": [{"address", "kind", "symbol", "state", "holders": [{"pid", "comm", "task", "proof"}]}], ' +
      '"waits": [{"pid", "comm", "task", "lock", "wanted", "waiter", "taker", "caller", "seconds"}], "deadlocks": [[{"pid", "comm", ' +
      '"task", "lock"}]]}. The first of the findings is the cause: its `weight` is "cause", that of others "related" or "note". ' +
      'An evidence is {"address", "what"}, {"pid", "comm", "task", "what"} or {"time", "log"}. `crash`, `fault`, `signature` are null ' +
      'where there is none.',
  ],
  arguments: [vmcore],
  flags: inputFlags,
  exits: dumpExits,
  examples: [
    { line: 'tideover crash why vmcore', does: 'what happened' },
    {
      line: 'tideover crash why vmcore --json | jq -r .signature.hash',
      does: 'by which to find other crashes of this kind',
    },
  ],
  run: (io, { flags, args: [path] }) =>
    withKernel(io, path as string, flags, async (kernel) => {
      const { diagnose } = await import('../../../crash/why/why.ts');
      const { verdictJson } = await import('../../../crash/why/json.ts');
      const { summarise } = await import('../../../crash/kernel/summary.ts');
      const verdict = await diagnose(kernel);
      const { utsname, time, uptime } = summarise(kernel);
      const { release, version } = { version: undefined, ...utsname };
      const { headline, ...rest } = verdictJson(verdict);
      const json = { headline, release, version, time, uptime, ...rest };
      const about = [release, version, uptime === undefined ? undefined : `up ${uptime} s`].filter(Boolean).join(', ');
      return { json, text: (view) => lines(verdict, about, view) };
    }),
});

function lines(verdict: Verdict, about: string, { width, paint }: View): string[] {
  const { headline, findings, crash, waits, signature } = verdict;
  const [cause, ...others] = findings;
  const text = (line: string, indent: string) =>
    wrap(printableLine(line), width - indent.length).map(
      (part, i) => `${i === 0 ? indent : ' '.repeat(indent.length)}${part}`,
    );
  const title = (line: string) => ['', paint('bold', line)];
  const found = (finding: Finding, lead: string) => [
    ...text(finding.text, lead),
    ...finding.details.flatMap((detail) => text(detail, '     - ')),
    ...finding.evidence.flatMap((each) => text(evidenceText(each), '     > ')),
  ];
  return [
    ...text(headline, '').map((line) => paint(['bold', 'red'], line)),
    ...text(about, ''),
    ...(signature === undefined ? [] : [`signature ${signature.hash}`]),
    ...(cause === undefined ? [] : [...cause.details.flatMap((detail) => text(detail, '  - '))]),
    ...(cause === undefined ? [] : cause.evidence.flatMap((each) => text(evidenceText(each), '  > '))),
    ...(crash === undefined ? [] : [...title('Where the kernel stopped'), ...crashLines(crash).map(printableLine)]),
    ...(waits.cycles.length === 0 ? [] : title('Deadlock')),
    ...waits.cycles.flatMap((cycle) => drawCycle(cycle, waits.locks)).map(printableLine),
    ...(others.length === 0 ? [] : title('What else was wrong, or is worth knowing')),
    ...others.flatMap((finding, i) => found(finding, `${`${i + 1}.`.padStart(4)} `)),
  ];
}

function evidenceText(evidence: Evidence): string {
  switch (evidence.kind) {
    case 'address':
      return `${hex(evidence.address)}: ${evidence.what}`;
    case 'task': {
      const { address, comm, pid } = evidence.task;
      return `task ${hex(address)}, ${comm} (${pid}): ${evidence.what}`;
    }
    case 'log':
      return `log at ${(Number(evidence.time) / 1e9).toFixed(6)}: ${evidence.text}`;
  }
}

/** Of a function that calls itself, so many frames are shown at either end. */
const REPEATED = 2;

function crashLines({ task, cpu, frames, fault, end }: CrashSite): string[] {
  const names = frames.map(({ symbol, offset, module, pc }) => {
    const name = symbol === '' ? '(unknown)' : `${symbol}+${hex(offset)}`;
    return `${name}${module === undefined ? '' : ` [${module}]`} at ${hex(pc)}`;
  });
  const shown = frames.flatMap(({ interrupted, pc }, i) => {
    const isSame = (at: number) => frames[at]?.pc === pc;
    const isWithin = Array.from({ length: 2 * REPEATED + 1 }, (_, k) => k - REPEATED).every((k) => isSame(i + k));
    if (isWithin) return isSame(i - REPEATED - 1) ? [] : ['    ... again and again'];
    return [...(interrupted && i > 0 ? ['    --- interrupted here ---'] : []), `${`#${i}`.padStart(3)} ${names[i]}`];
  });
  return [
    `  task ${task.comm} (${task.pid}) at ${hex(task.address)}, on CPU ${cpu}`,
    ...(fault === undefined ? [] : registerLines(fault.registers)),
    ...shown,
    ...(end === 'user' ? ['    from user space'] : []),
    ...(end === 'unknown' ? ['    (it goes on, and cannot be followed)'] : []),
  ];
}

function registerLines(registers: Readonly<Record<string, bigint>>): string[] {
  const cells = Object.entries(registers)
    .filter(([name]) => name !== 'orig_rax')
    .map(([name, value]) => `${name.padStart(6)} ${value.toString(16).padStart(16, '0')}`);
  return Array.from(
    { length: Math.ceil(cells.length / 3) },
    (_, row) => `  ${cells.slice(row * 3, row * 3 + 3).join('  ')}`,
  );
}

/**
 *     ┌─► a (1)
 *     │     waits for the mutex x, which is held by
 *     │   b (2)
 *     │     waits for the mutex y, which is held by
 *     └── the first
 */
function drawCycle(cycle: readonly Wait[], locks: readonly Lock[]): string[] {
  const steps = cycle.flatMap(({ task, lock: address }, i) => {
    const lock = locks.find((each) => each.address === address);
    const name = `${lock?.kind ?? 'lock'} ${lock?.symbol ?? ''}`.trimEnd();
    const who = `${task.comm} (${task.pid})`;
    return [
      `${i === 0 ? '  ┌─► ' : '  │   '}${who}`,
      `  │     waits for the ${name} at ${hex(address)}, which is held by`,
    ];
  });
  return [...steps, '  └── the first'];
}
