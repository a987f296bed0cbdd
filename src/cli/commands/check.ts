import type { Report } from '../../sys/probe/probe.ts';
import type { Style } from '../color.ts';
import { command } from '../command.ts';
import type { View } from '../io.ts';
import { table } from '../table.ts';
import { printableLine } from '../text.ts';

export const check = command({
  name: 'check',
  group: 'This machine',
  summary: 'Show what this machine and kernel can do, and why not',
  description: [
    'Tries each kernel feature itself, never a version, and changes nothing by it: no setting is written, nothing is ' +
      'loaded, no process stays. What cannot be seen without privilege is answered "unknown", with the way to see it.',
    'With --json: {"rows": [{id, group, title, answer, reason, remedy?}], "jobs": [{id, title, answer, reason}], ' +
      '"groups": [{id, title}], "kernel": {release, machine, cmdline?}}; answer is "yes", "no", "partly" or "unknown".',
  ],
  exits: {
    0: 'It could look, whatever it saw.',
    3: 'This is not Linux on x86-64.',
  },
  examples: [
    { line: 'tideover check', does: 'the table, for people' },
    { line: `tideover check --json | jq '.rows[] | select(.answer != "yes")'`, does: 'only what is missing' },
  ],
  async run(io) {
    const { probeMachine } = await import('../../sys/probe/probe.ts');
    const report = await probeMachine((row) => io.debug(`${row.id}: ${row.answer}`));
    return { json: report, text: (view) => show(report, view) };
  },
});

const STYLES: Readonly<Record<string, Style>> = { yes: 'green', no: 'red', partly: 'yellow', unknown: 'magenta' };

function show({ rows, jobs, groups, kernel }: Report, view: View): string[] {
  const lines = [`Linux ${printableLine(kernel.release)} on ${kernel.machine}`];
  const answer = { title: '', style: (cell: string) => STYLES[cell] };
  for (const { id, title } of groups) {
    lines.push('', view.paint('bold', title));
    const cells = rows
      .filter((row) => row.group === id)
      .map((row) => [
        row.title,
        row.answer,
        row.remedy === undefined ? row.reason : `${row.reason}. Remedy: ${row.remedy}`,
      ]);
    lines.push(...table([{ title: '' }, answer, { title: '', overflow: 'wrap' }], cells, view));
  }
  lines.push('', view.paint('bold', 'What can be done'));
  const done = jobs.map((job) => [job.title, job.answer, job.reason]);
  lines.push(...table([{ title: '' }, answer, { title: '', overflow: 'wrap' }], done, view));
  return lines;
}
