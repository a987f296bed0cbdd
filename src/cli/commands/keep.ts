import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync, rmdirSync, rmSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { UnsupportedError } from '../../errors.ts';
import type { Unit } from '../../update/unit.ts';
import { command } from '../command.ts';

export const keep = command({
  name: 'keep',
  group: 'Processes',
  summary: 'Have a service of systemd run so that it can be kept over a change of the kernel',
  description: [
    'Writes /etc/systemd/system/SERVICE.service.d/tideover.conf, by which the service is started with tideover run, as the user and with ' +
      'the capabilities that its unit says. It counts from the next start of the service on, which goes on from a preserved checkpoint ' +
      'where there is one. What will be otherwise than before is said.',
    'With --json: {"unit", "file", "notes"}; with --remove {"unit", "file", "removed"}.',
  ],
  arguments: [{ name: 'SERVICE', summary: 'name of the unit, with or without .service' }],
  flags: {
    remove: { long: 'remove', summary: 'take it back: from its next start on the service runs as its unit says' },
  },
  exits: { 1: 'The file cannot be written.', 3: 'The service cannot be kept; it says why.' },
  examples: [
    { line: 'tideover keep redis-server && systemctl restart redis-server', does: 'run redis so that it can be kept' },
  ],
  async run(io, { flags, args }) {
    const unit = (args[0] as string).replace(/(?:\.service)?$/, '.service');
    const { dropIn, workloadOf } = await import('../../update/unit.ts');
    const { writeWhole } = await import('../../sys/folder.ts');
    workloadOf(unit);
    const file = `/etc/systemd/system/${unit}.d/tideover.conf`;
    if (flags.remove) {
      const removed = remove(file);
      if (removed) systemctl('daemon-reload');
      io.info(removed ? `${unit} runs as its unit says when it is started next` : `${unit} was not kept`);
      return { json: { unit, file, removed }, text: () => [] };
    }
    const before = existsSync(file) ? readFileSync(file, 'utf8') : undefined;
    let notes: readonly string[];
    try {
      const made = dropIn(await describe(unit, file), [process.execPath, resolve(process.argv[1]!)], groupsOf);
      notes = made.notes;
      writeWhole(file, made.text, READABLE);
    } catch (error) {
      // It is kept as it was.
      if (before !== undefined) {
        writeWhole(file, before, READABLE);
        systemctl('daemon-reload');
      }
      throw error;
    }
    systemctl('daemon-reload');
    for (const note of notes) io.warn(`${unit}: ${note}`);
    io.info(`${unit} is kept from its next start on: systemctl restart ${unit}`);
    return { json: { unit, file, notes }, text: () => [file] };
  },
});

/** Of what systemd reads. */
const READABLE = 0o644;

/** @param ours our drop-in, which does not count */
async function describe(name: string, ours: string): Promise<Unit> {
  const { PROPERTIES, SANDBOX } = await import('../../update/unit.ts');
  const shown = systemctl('show', `--property=${[...PROPERTIES, ...SANDBOX].join(',')}`, name);
  const properties = new Map(
    shown
      .split('\n')
      .filter((line) => line.includes('='))
      .map((line) => [line.slice(0, line.indexOf('=')), line.slice(line.indexOf('=') + 1)] as const),
  );
  if (properties.get('DropInPaths')?.split(' ').includes(ours)) {
    // Else what it says would be taken for the unit's own words.
    remove(ours);
    systemctl('daemon-reload');
    return describe(name, ours);
  }
  const paths = [properties.get('FragmentPath') ?? '', ...(properties.get('DropInPaths') ?? '').split(' ')];
  const files = paths.filter((path) => path !== '').map((path) => readFileSync(path, 'utf8'));
  return { name, properties, files };
}

/** @returns whether it was there */
function remove(file: string): boolean {
  try {
    rmSync(file);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return false;
    throw error;
  }
  try {
    rmdirSync(dirname(file));
  } catch {
    // Others have put something there.
  }
  return true;
}

function systemctl(...args: string[]): string {
  try {
    return execFileSync('systemctl', args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });
  } catch (error) {
    const { stderr = '', message } = error as Error & { stderr?: string };
    const remedy = 'services are kept where systemd runs; elsewhere use tideover run';
    throw new UnsupportedError({ what: `systemctl ${args[0]}`, why: stderr.trim() || message, remedy });
  }
}

/** The user's groups, the primary one first. */
function groupsOf(user: string): string[] {
  const names = (option: string) => execFileSync('id', [option, '--', user], { encoding: 'utf8' }).trim().split(' ');
  const [primary] = names('-gn');
  return [primary!, ...names('-Gn').filter((name) => name !== primary)];
}
