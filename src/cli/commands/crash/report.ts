/** A page for whoever is to understand the crash. */
import type { Kernel } from '../../../crash/kernel/kernel.ts';
import type { Verdict } from '../../../crash/why/verdict.ts';
import { version } from '../../../version.ts';
import { command } from '../../command.ts';
import { UsageError } from '../../exit.ts';
import { dumpExits, inputFlags, vmcore, withKernel } from '../../kernel.ts';
import { byteSize } from '../../progress.ts';

export const report = command({
  name: 'report',
  summary: 'Write all that is known of a crash as one HTML page, to be read and passed on',
  description: [
    'What happened and by what it is known, who waits for what as a picture, the log with a search, the tasks grouped by identical ' +
      'stack, what memory was used for, the modules, and what could not be read. The page needs no network and no other file.',
    'It holds what the log and the names of processes hold, so only its owner may read it (mode 0600).',
    'With --json: {"file", "bytes", "tasks", "stacks", "lines"}.',
  ],
  arguments: [vmcore],
  flags: {
    ...inputFlags,
    output: { long: 'output', short: 'o', value: 'FILE', summary: 'the page to write; report.html if not given' },
    force: { long: 'force', short: 'f', summary: 'overwrite it if it exists' },
  },
  exits: { ...dumpExits, 1: 'The page could not be written. Nothing is left of it.' },
  examples: [{ line: 'tideover crash report vmcore -o crash.html', does: 'open it in any browser' }],
  run: (io, { flags, args: [path] }) =>
    withKernel(io, path as string, flags, async (kernel) => {
      const { existsSync } = await import('node:fs');
      const { OutputFile } = await import('../../../crash/io/output.ts');
      const { collectReport } = await import('../../../crash/report/collect.ts');
      const { reportPage } = await import('../../../crash/report/page.ts');
      const name = flags.output ?? 'report.html';
      if (existsSync(name) && !flags.force) throw new UsageError(`${name} exists already; -f overwrites it`);
      const report = collectReport(kernel, await verdictOf(kernel));
      const page = Buffer.from(await reportPage(report, `tideover ${version()}`));
      const file = new OutputFile(name);
      try {
        file.write(0, page);
        file.commit();
      } catch (error) {
        file.abort();
        throw error;
      }
      const tasks = report.stacks.reduce((sum, group) => sum + group.tasks.length, 0);
      return {
        json: { file: name, bytes: page.length, tasks, stacks: report.stacks.length, lines: report.log.length },
        text: () => [`${name}: ${byteSize(page.length)}`],
      };
    }),
});

async function verdictOf(kernel: Kernel): Promise<Verdict | undefined> {
  const { diagnose } = await import('../../../crash/why/why.ts');
  try {
    return await diagnose(kernel);
  } catch (error) {
    kernel.gaps.note('what happened', error);
    return undefined;
  }
}
