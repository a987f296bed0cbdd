/** What is said of a crash, as texts. */

import { timeText } from '../kernel/printk.ts';
import type { Evidence, Verdict } from '../why/verdict.ts';
import type { VerdictFacts } from './report.ts';

export function verdictFacts({ headline, findings, crash, signature }: Verdict): VerdictFacts {
  const fault = crash?.fault;
  return {
    headline,
    findings: findings.map(({ weight, text, details, evidence }) => ({
      weight,
      text,
      details,
      evidence: evidence.map(evidenceText),
    })),
    fault: fault && {
      at: `${fault.at.symbol || hex(fault.at.pc)}+${hex(fault.at.offset)}${fault.at.module === undefined ? '' : ` [${fault.at.module}]`}`,
      instruction: fault.instruction,
      entry: fault.entry,
      address: fault.address === undefined ? undefined : hex(fault.address),
      registers: Object.entries(fault.registers).map(([name, value]) => [name, value.toString(16).padStart(16, '0')]),
    },
    signature,
  };
}

function evidenceText(evidence: Evidence): string {
  switch (evidence.kind) {
    case 'address':
      return `${hex(evidence.address)}: ${evidence.what}`;
    case 'task':
      return `task ${evidence.task.pid} ${evidence.task.comm} (${hex(evidence.task.address)}): ${evidence.what}`;
    case 'log':
      return `[${timeText(evidence.time)}] ${evidence.text}`;
  }
}

function hex(value: bigint | number): string {
  return `0x${value.toString(16)}`;
}
