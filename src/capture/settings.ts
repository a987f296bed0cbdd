/**
 * /etc/tideover/crash.conf: a key and its value on a line, as in kdump.conf(5), whose keys are understood. `#` begins a comment.
 *
 *     target /var/crash
 *     target nfs:server:/export
 *     level 31
 *     final_action reboot
 */
import { existsSync, readFileSync } from 'node:fs';
import { FormatError } from '../errors.ts';

const compressions = ['zstd', 'lzo', 'zlib', 'snappy'] as const;
/** What follows when all is saved, or not. `boot` starts the kernel again by kexec, with what memory preserves. */
const finalActions = ['reboot', 'poweroff', 'halt', 'shell', 'boot'] as const;

export interface CrashSettings {
  /** Where to, in the order in which they are tried: `/var/crash`, `nfs:HOST:/DIR`, `ssh:USER@HOST:DIR`, `http://...`, `/dev/...`. */
  readonly targets: readonly string[];
  /** What is left out: makedumpfile's -d. */
  readonly level: number;
  readonly compress: (typeof compressions)[number];
  readonly finalAction: (typeof finalActions)[number];
  /** When nothing could be saved but what the console shows. */
  readonly failureAction: (typeof finalActions)[number];
  readonly sshKey: string;
  readonly extraModules: readonly string[];
  /** Kernel and what is added to its command line; undefined for the running one's file. */
  readonly kernel: string | undefined;
  readonly append: string;
  /** With the final action `boot`: the initrd of the kernel that follows; undefined for the installed one. */
  readonly nextInitrd: string | undefined;
}

export const SETTINGS_FILE = '/etc/tideover/crash.conf';

export const defaults: CrashSettings = {
  targets: ['/var/crash'],
  level: 31,
  compress: 'zstd',
  finalAction: 'reboot',
  failureAction: 'reboot',
  sshKey: '/root/.ssh/kdump_id_rsa',
  extraModules: [],
  kernel: undefined,
  append: '',
  nextInitrd: undefined,
};

/** The file's settings; the defaults without it. @throws FormatError with the line */
export function readSettings(file = SETTINGS_FILE): CrashSettings {
  return existsSync(file) ? parseSettings(readFileSync(file, 'utf8'), file) : defaults;
}

/** @param file for messages @throws FormatError */
export function parseSettings(text: string, file: string): CrashSettings {
  const found: { -readonly [K in keyof CrashSettings]?: CrashSettings[K] } = {};
  const targets: string[] = [];
  let path = '/var/crash';
  for (const [i, line] of text.split('\n').entries()) {
    const [, key, value = ''] = /^\s*([^\s#]+)\s*(.*?)\s*$/.exec(line.replace(/(^|\s)#.*/, '')) ?? [];
    if (key === undefined) continue;
    const wrong = (expected: string) =>
      new FormatError({ file, field: `line ${i + 1}, ${key}`, expected, found: value === '' ? 'nothing' : value });
    const oneOf = <T extends string>(values: readonly T[]): T => {
      const chosen = values.find((each) => each === value);
      if (chosen === undefined) throw wrong(values.join(', '));
      return chosen;
    };
    if (value === '') throw wrong('a value');
    switch (key) {
      case 'target':
        targets.push(value);
        break;
      case 'path':
        path = value;
        break;
      case 'nfs':
        targets.push(`nfs:${value}`);
        break;
      case 'ssh':
        targets.push(`ssh:${value}`);
        break;
      case 'raw':
        targets.push(value);
        break;
      case 'level':
        if (!/^([12]?\d|3[01])$/.test(value)) throw wrong('0 to 31');
        found.level = Number(value);
        break;
      case 'compress':
        found.compress = oneOf(compressions);
        break;
      case 'core_collector':
        Object.assign(found, collector(value, wrong));
        break;
      case 'final_action':
        found.finalAction = oneOf(finalActions);
        break;
      case 'failure_action':
      case 'default':
        found.failureAction = oneOf(finalActions);
        break;
      case 'sshkey':
        found.sshKey = value;
        break;
      case 'extra_modules':
        found.extraModules = value.split(/\s+/);
        break;
      case 'kernel':
        found.kernel = value;
        break;
      case 'next_initrd':
        found.nextInitrd = value;
        break;
      case 'append':
        found.append = value;
        break;
      // Of kdump.conf(5) as it is installed: there is no image here that would be made anew, and crashkernel= is left alone.
      case 'auto_reset_crashkernel':
      case 'force_rebuild':
      case 'force_no_rebuild':
        break;
      default:
        throw new FormatError({ file, field: `line ${i + 1}`, expected: 'a key of crash.conf', found: key });
    }
  }
  const full = (target: string) => (/^ssh:[^:/]+$/.test(target) ? `${target}:${path}` : target);
  return { ...defaults, ...found, targets: targets.length === 0 ? [path] : targets.map(full) };
}

/** makedumpfile's options of kdump.conf: those that mean something here. */
function collector(value: string, wrong: (expected: string) => FormatError): Partial<CrashSettings> {
  const words = value.split(/\s+/);
  if (words[0] !== 'makedumpfile') throw wrong('makedumpfile and its options');
  const level = /-d\s*(\d+)/.exec(value)?.[1];
  const by = { '-c': 'zlib', '-l': 'lzo', '-p': 'snappy', '-z': 'zstd' } as const;
  const compress = Object.entries(by).find(([option]) => words.includes(option))?.[1];
  return { ...(level !== undefined && { level: Number(level) }), ...(compress !== undefined && { compress }) };
}
