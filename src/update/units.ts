/**
 * What the next system does by itself, where it has systemd: packets of kept connections are held back before the network is up,
 * services go on by their own start, everything else when the machine has its addresses.
 */
import { existsSync, readFileSync, rmSync } from 'node:fs';
import { dirname } from 'node:path';
import { attemptSystemctl, installFiles, type SystemFile, systemctl } from '../sys/systemd.ts';
import { LOCK } from './alone.ts';
import { sayTime } from './early.ts';
import { PARAMETER } from './medium.ts';
import { RECORD_FILE } from './record.ts';
import { execStarts, quoted } from './unit.ts';
import { spillOf } from './workload.ts';

const FOLDER = '/etc/systemd/system';
const HOLD = 'tideover-hold.service';
const RESUME = 'tideover-resume.service';

/** One of both: memory that an earlier kernel left, or copies on the disk. */
const conditions = () =>
  `ConditionKernelCommandLine=|${PARAMETER}\nConditionDirectoryNotEmpty=|${dirname(spillOf('x'))}`;

/** Paths and contents, as of systemd.unit(5). @param program words that start tideover */
export function unitFiles(program: readonly string[]): ReadonlyMap<string, SystemFile> {
  const tideover = program.map(quoted).join(' ');
  const hold = `[Unit]
Description=Hold back packets of connections whose processes are restored later
DefaultDependencies=no
Conflicts=shutdown.target
RequiresMountsFor=/var/lib/tideover /usr
After=systemd-remount-fs.service local-fs.target systemd-modules-load.service
Before=network-pre.target shutdown.target
Wants=network-pre.target
${conditions()}

[Service]
# Ready when packets are held back; it stays, and has processes go on when the unit below says so (early.ts).
Type=notify
RemainAfterExit=yes
KillMode=process
TimeoutStartSec=infinity
# Some wait to be restored: it is said below.
SuccessExitStatus=4
ExecStart=${tideover} update resume --hold --stay

[Install]
WantedBy=sysinit.target
`;
  const resume = `[Unit]
Description=Make processes go on that were kept over a change of kernels
After=network.target ${HOLD}
${conditions()}
# Says what is lost, where neither is there.
ConditionPathExists=|${RECORD_FILE}

[Service]
Type=oneshot
RemainAfterExit=yes
KillMode=process
TimeoutStartSec=infinity
ExecStartPre=-/bin/sh -c '${sayTime(LOCK)}'
ExecStart=${tideover} update resume --follow

[Install]
WantedBy=multi-user.target
`;
  return new Map([
    [`${FOLDER}/${HOLD}`, { text: hold, mode: 0o644 }],
    [`${FOLDER}/${RESUME}`, { text: resume, mode: 0o644 }],
  ]);
}

/** Writes and enables the units. @returns their files */
export function installUnits(program: readonly string[]): string[] {
  const files = unitFiles(program);
  installFiles(files);
  systemctl('daemon-reload');
  systemctl('enable', HOLD, RESUME);
  return [...files.keys()];
}

/** Disables and removes them. */
export function removeUnits(): void {
  const there = [HOLD, RESUME].filter((name) => existsSync(`${FOLDER}/${name}`));
  if (there.length > 0) systemctl('disable', ...there);
  for (const name of there) rmSync(`${FOLDER}/${name}`);
  systemctl('daemon-reload');
}

/** Why the next system would not do it; undefined where it will. */
export function whyNoUnits(): string | undefined {
  const isEnabled = (name: string) => attemptSystemctl('is-enabled', '--quiet', name) === undefined;
  for (const name of [HOLD, RESUME]) {
    const file = `${FOLDER}/${name}`;
    if (!existsSync(file) || !isEnabled(name)) return 'its units are not installed';
    const missing = missingProgram(readFileSync(file, 'utf8'));
    if (missing !== undefined) return `${name} starts ${missing}, which is not there any more`;
  }
  return undefined;
}

/** The first file of the command line of a unit of ours that is not there: Node or tideover were moved, or are of another version now. */
export function missingProgram(unit: string): string | undefined {
  const words = execStarts([unit]).flatMap((line) => [...line.matchAll(/"((?:\\.|[^"\\])*)"|\S+/g)]);
  const plain = words.map(([word, within]) => (within ?? word).replace(/\\(.)|%(%)|\$(\$)/g, '$1$2$3'));
  return plain.find((word) => word.startsWith('/') && !existsSync(word));
}
