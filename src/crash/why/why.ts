/**
 * The verdict that a support engineer would write of a crash, out of the dump alone.
 *
 *   log, tasks, stacks ─► events ──┐
 *          │              crash ───┼─► cause ─► headline, signature
 *          └────────────► waits ───┤
 *                         memory ──┴─► other findings
 *
 * What cannot be read is left out, and is among the kernel's gaps.
 */

import type { Kernel } from '../kernel/kernel.ts';
import { findBlocked, findDeadlocks } from './blocked.ts';
import { type Cause, findCause } from './cause.ts';
import { findCrash } from './crash.ts';
import { type LogEvent, type Oops, readEvents, readOopses } from './events.ts';
import { findLeaks } from './memory.ts';
import { logEvidence, Scene } from './scene.ts';
import { signatureOf } from './signature.ts';
import { findSpinning } from './spinning.ts';
import { findTaint } from './taints.ts';
import type { CrashSite, Finding, FindingKind, Verdict } from './verdict.ts';
import { findWaits } from './waiters.ts';
import { noWaits } from './waits.ts';

/** What weighs more comes first, among findings of the same weight. */
const order: readonly FindingKind[] = [
  'machine-check',
  'oops',
  'list-corruption',
  'slab-corruption',
  'stack-overflow',
  'deadlock',
  'hard-lockup',
  'soft-lockup',
  'rcu-stall',
  'oom',
  'leak',
  'hung-task',
  'blocked',
  'warning',
  'taint',
];

/** Reads the dump and says what happened. */
export async function diagnose(kernel: Kernel): Promise<Verdict> {
  const scene = new Scene(kernel);
  const crash = await findCrash(scene);
  const events = readEvents(scene);
  const oopses = readOopses(scene);
  const waits = kernel.gaps.try('locks', () => findWaits(scene)) ?? noWaits;
  const cause = findCause({ scene, crash, events, oopses, waits });
  const { taint, modules, findings: taints } = findTaint(scene);
  const others = [
    ...findDeadlocks(waits),
    ...findSpinning(scene),
    ...findBlocked(waits, scene).filter((each) => !isTold(each, cause)),
    ...earlierOopses(oopses, cause),
    ...otherEvents(events, oopses, cause),
    ...findLeaks(scene),
    ...taints,
  ].sort((a, b) => rank(a) - rank(b));
  return {
    headline: headlineOf(cause, others),
    findings: [cause.finding, ...others],
    crash,
    waits,
    signature: signatureOf(cause.finding.kind, cause.frames, cause.about),
    taint,
    modules: [...new Set([...modulesOf(cause, crash), ...modules])],
  };
}

function rank({ weight, kind }: Finding): number {
  return (weight === 'note' ? order.length : 0) + Math.max(0, order.indexOf(kind));
}

function headlineOf({ finding }: Cause, others: readonly Finding[]): string {
  const more = finding.kind === 'running' ? others.find(({ weight }) => weight === 'related') : undefined;
  const text = more === undefined ? finding.text : `${finding.text}; ${more.text}`;
  return `${text.charAt(0).toUpperCase()}${text.slice(1)}.`;
}

/** Whether a finding is about tasks alone of which the cause speaks already. */
function isTold({ evidence }: Finding, { finding }: Cause): boolean {
  const told = new Set(finding.evidence.flatMap((each) => (each.kind === 'task' ? [each.task.address] : [])));
  return evidence.every((each) => each.kind !== 'task' || told.has(each.task.address));
}

/** Reports of dying tasks before the one that is the cause. */
function earlierOopses(oopses: readonly Oops[], { finding }: Cause): Finding[] {
  const told = new Set(finding.evidence.flatMap((each) => (each.kind === 'log' ? [each.text] : [])));
  return oopses
    .filter(({ line }) => !told.has(line.text))
    .map(({ title, line, rip, comm, pid, number }): Finding => {
      const who = comm === undefined ? '' : `, in task ${comm} (${pid})`;
      return {
        kind: 'oops',
        weight: 'related',
        text: `before, the kernel had an oops (the ${ordinal(number)})${rip === undefined ? '' : ` in ${rip}`}${who}: ${title.text}`,
        details: [],
        evidence: [title, ...(title === line ? [] : [line])].map(logEvidence),
      };
    });
}

function ordinal(number: number): string {
  return ['0th', 'first', 'second', 'third'][number] ?? `${number}th`;
}

/** Of each kind of message the first, and how many there were. Those of the cause itself are told there. */
function otherEvents(events: readonly LogEvent[], oopses: readonly Oops[], { finding }: Cause): Finding[] {
  const others = events.filter(
    ({ kind, line }) => kind !== finding.kind && !oopses.some(({ title }) => title === line),
  );
  return [...Map.groupBy(others, ({ kind }) => kind)].map(([kind, of]): Finding => {
    const [first] = of as [LogEvent, ...LogEvent[]];
    const times = of.length === 1 ? '' : ` (and ${of.length - 1} more of this kind)`;
    return {
      kind,
      weight: kind === 'warning' ? 'note' : 'related',
      text: `before, ${first.text}${times}`,
      details: [],
      evidence: of.slice(0, 5).map(({ line }) => logEvidence(line)),
    };
  });
}

function modulesOf({ frames }: Cause, crash: CrashSite | undefined): string[] {
  return [...frames, ...(crash?.frames ?? [])].flatMap(({ module }) => module ?? []);
}
