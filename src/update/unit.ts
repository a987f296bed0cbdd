/**
 * The drop-in by which a service of systemd becomes a workload: systemd.unit(5), systemd.service(5), systemd.exec(5).
 *
 * Namespaces are made by root, so the command line is run with full privileges (`+`): what the unit says of its user, its
 * capabilities and no_new_privs is put before the command, by setpriv(1). What the unit shuts it off from with mounts and system call
 * filters does not apply any more, and is named.
 */
import { UnsupportedError } from '../errors.ts';
import { demandWorkloadName } from './workload.ts';

/** What systemd says of a unit. */
export interface Unit {
  /** With its `.service`. */
  readonly name: string;
  /** As `systemctl show` prints them. */
  readonly properties: ReadonlyMap<string, string>;
  /** Its file and its drop-ins, in their order, without ours. */
  readonly files: readonly string[];
}

export interface DropIn {
  readonly text: string;
  /** What will be otherwise than before, for people. */
  readonly notes: readonly string[];
}

/** What `systemctl show` is asked for. */
export const PROPERTIES = [
  ...['LoadState', 'FragmentPath', 'DropInPaths', 'TriggeredBy', 'Type', 'DynamicUser', 'RootDirectory', 'RootImage'],
  ...['WatchdogUSec', 'User', 'Group', 'SupplementaryGroups', 'NoNewPrivileges', 'CapabilityBoundingSet'],
  ...['AmbientCapabilities', 'StandardInput'],
] as const;

/**
 * Settings that `+` leaves out and for which systemd makes a mount namespace even so (exec_needs_mount_namespace() of
 * src/core/execute.c), with the values by which it makes none.
 */
const MOUNTS = {
  ...{ PrivateTmp: 'no', PrivateDevices: 'no', PrivateMounts: 'no', PrivateIPC: 'no', ProtectSystem: 'no' },
  ...{ ProtectHome: 'no', ProtectKernelTunables: 'no', ProtectKernelModules: 'no', ProtectKernelLogs: 'no' },
  ...{ ProtectControlGroups: 'no', ProtectProc: 'default', ProcSubset: 'all', ReadWritePaths: '', ReadOnlyPaths: '' },
  ...{ InaccessiblePaths: '', ExecPaths: '', NoExecPaths: '', BindPaths: '', BindReadOnlyPaths: '' },
  TemporaryFileSystem: '',
} as const;
type MountSetting = keyof typeof MOUNTS;
const mountSettings = Object.keys(MOUNTS) as MountSetting[];

/** Settings that `+` leaves out and nobody puts back. */
export const SANDBOX: readonly string[] = [
  ...mountSettings,
  ...['PrivateNetwork', 'SystemCallFilter', 'RestrictAddressFamilies', 'RestrictNamespaces', 'LockPersonality'],
  ...['MemoryDenyWriteExecute', 'RestrictRealtime', 'RestrictSUIDSGID', 'ProtectHostname', 'ProtectClock'],
];
const UNSET = new Set(['', 'no', 'default', 'all', '~']);

/** Name of the workload that a service is. */
export function workloadOf(unit: string): string {
  const name = unit.replace(/\.service$/, '');
  demandWorkloadName(name);
  return name;
}

/**
 * @param tideover words that start this program
 * @param groupsOf names of a user's groups, the primary one first
 * @throws UnsupportedError for a service that cannot be a workload
 */
export function dropIn(unit: Unit, tideover: readonly string[], groupsOf: (user: string) => readonly string[]): DropIn {
  const name = workloadOf(unit.name);
  refuse(unit);
  const lines = execStarts(unit.files);
  if (lines.length !== 1) no(unit, `it has ${lines.length} lines ExecStart=`, 'give it one');
  const [, prefixes, line] = /^([@:+!|-]*)\s*(.*)$/s.exec(lines[0]!)!;
  if (prefixes!.includes('@')) no(unit, 'its ExecStart= gives the program another name (@)', 'leave that out');
  const privileged = /[+!]/.test(prefixes!);
  const privileges = privileged ? [] : privilegesOf(unit, groupsOf);
  const kept = [...prefixes!].filter((prefix) => ':-'.includes(prefix)).join('');
  const tells = /^notify/.test(unit.properties.get('Type')!);
  const run = ['run', ...(tells ? ['--notify'] : []), name, '--'];
  const words = [...tideover, ...run, ...(privileges.length > 0 ? ['setpriv', ...privileges, '--'] : [])];
  const isSet = (setting: string) => !UNSET.has(unit.properties.get(setting) ?? '');
  const text = [
    `# Written by tideover keep ${unit.name}. It is taken back by tideover keep --remove ${unit.name}`,
    '[Service]',
    'ExecStart=',
    `ExecStart=${kept}+${words.map(quoted).join(' ')} ${line}`,
    'Type=notify',
    // The program is no main process: that is the init of its namespace.
    `NotifyAccess=${tells ? 'all' : 'main'}`,
    'PIDFile=',
    // To the init, which passes it on; the rest of the namespace ends with it.
    'KillMode=mixed',
    // A restore takes the longer the more memory there is.
    'TimeoutStartSec=infinity',
    ...mountSettings.filter(isSet).map((setting) => `${setting}=${MOUNTS[setting]}`),
    '',
  ].join('\n');
  const lost = SANDBOX.filter(isSet);
  return {
    text,
    notes: [
      `what it writes goes to /var/log/tideover/${name}.log and not to the journal`,
      ...(lost.length > 0 ? [`these settings do not apply while it is kept: ${lost.join(', ')}`] : []),
    ],
  };
}

function refuse(unit: Unit): void {
  const of = (property: (typeof PROPERTIES)[number]) => unit.properties.get(property) ?? '';
  if (of('LoadState') !== 'loaded') no(unit, 'systemd knows no such unit', 'look for it: systemctl list-unit-files');
  const type = of('Type');
  if (type === 'forking') no(unit, 'it goes into the background (Type=forking)', 'have it stay in the foreground');
  if (type === 'dbus') no(unit, 'its connection to the message bus cannot be kept', 'start it otherwise: tideover run');
  if (type === 'oneshot') no(unit, 'it ends by itself (Type=oneshot)', 'there is nothing to be kept');
  if (of('DynamicUser') === 'yes') no(unit, 'its user is made at every start (DynamicUser=)', 'give it one: User=');
  for (const root of ['RootDirectory', 'RootImage'] as const) {
    if (of(root) !== '') no(unit, `it has a root of its own (${root}=)`, 'run it in the root of the machine');
  }
  if (/\.socket\b/.test(of('TriggeredBy'))) {
    no(unit, 'systemd passes sockets to it', 'have it open its sockets itself, without the .socket unit');
  }
  if (!['', '0', 'infinity'].includes(of('WatchdogUSec'))) {
    no(unit, 'systemd waits for its signs of life (WatchdogSec=)', 'set WatchdogSec=0');
  }
  if (!['', 'null'].includes(of('StandardInput'))) no(unit, 'it reads from StandardInput=', 'have it read from null');
}

/** Words for setpriv(1). */
function privilegesOf({ properties, files }: Unit, groupsOf: (user: string) => readonly string[]): string[] {
  const of = (property: (typeof PROPERTIES)[number]) => properties.get(property) ?? '';
  const words: string[] = [];
  const [user, group, more] = [of('User'), of('Group'), of('SupplementaryGroups').split(' ').filter(Boolean)];
  if (user !== '' || group !== '' || more.length > 0) {
    const groups = user === '' ? [] : groupsOf(user);
    if (user !== '') words.push(`--reuid=${user}`);
    words.push(`--regid=${group || (groups[0] ?? 'root')}`);
    words.push(
      user !== '' && more.length === 0 ? '--init-groups' : `--groups=${[...groups, ...more].join(',') || 'root'}`,
    );
  }
  if (of('NoNewPrivileges') === 'yes') words.push('--no-new-privs');
  const set = (names: string) =>
    [
      '-all',
      ...names
        .split(' ')
        .filter(Boolean)
        .map((each) => `+${each.replace(/^cap_/, '')}`),
    ].join(',');
  // Said of every unit; all of them if the unit does not say.
  if (files.some((text) => /^\s*CapabilityBoundingSet\s*=/m.test(text))) {
    words.push(`--bounding-set=${set(of('CapabilityBoundingSet'))}`);
  }
  const ambient = of('AmbientCapabilities');
  if (ambient !== '') words.push(`--inh-caps=${set(ambient)}`, `--ambient-caps=${set(ambient)}`);
  return words;
}

/** The values of ExecStart= that count, as they are written: an empty one takes back those before it. */
export function execStarts(files: readonly string[]): string[] {
  let found: string[] = [];
  for (const text of files) {
    let section = '';
    // A line that ends in a backslash goes on, with a blank in its place, over comments.
    const whole = text.replace(/\\\n(?:[ \t]*[#;].*\n)*/g, ' ');
    for (const line of whole.split('\n')) {
      section = /^\s*(\[.*\])\s*$/.exec(line)?.[1] ?? section;
      const value = section === '[Service]' ? /^\s*ExecStart\s*=\s*(.*?)\s*$/.exec(line)?.[1] : undefined;
      if (value === undefined) continue;
      found = value === '' ? [] : [...found, value];
    }
  }
  return found;
}

/** A word of a command line of systemd, in which % and $ have a meaning. */
export function quoted(word: string): string {
  const plain = word.replaceAll('%', '%%').replaceAll('$', '$$$$');
  return /[\s"'\\;]/.test(plain) ? `"${plain.replace(/["\\]/g, '\\$&')}"` : plain;
}

function no({ name }: Unit, why: string, remedy: string): never {
  throw new UnsupportedError({ what: `keeping ${name}`, why, remedy });
}
