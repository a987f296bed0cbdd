/**
 * What the next system does by itself, where it has systemd: packets of kept connections are held back before the network is up,
 * services go on by their own start, everything else when the machine has its addresses.
 */
import { existsSync, rmSync } from 'node:fs';
import { dirname } from 'node:path';
import { attemptSystemctl, installFiles, type SystemFile, systemctl } from '../sys/systemd.ts';
import { PARAMETER } from './medium.ts';
import { RECORD_FILE } from './record.ts';
import { spillOf } from './workload.ts';

const FOLDER = '/etc/systemd/system';
const HOLD = 'tideover-hold.service';
const RESUME = 'tideover-resume.service';

/** One of both: memory that an earlier kernel left, or copies on the disk. */
const conditions = () =>
  `ConditionKernelCommandLine=|${PARAMETER}\nConditionDirectoryNotEmpty=|${dirname(spillOf('x'))}`;

/** Paths and contents, as of systemd.unit(5). @param program how tideover is started */
export function unitFiles(program: string): ReadonlyMap<string, SystemFile> {
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
Type=oneshot
RemainAfterExit=yes
ExecStart=${program} update resume --hold

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
ExecStart=${program} update resume

[Install]
WantedBy=multi-user.target
`;
  return new Map([
    [`${FOLDER}/${HOLD}`, { text: hold, mode: 0o644 }],
    [`${FOLDER}/${RESUME}`, { text: resume, mode: 0o644 }],
  ]);
}

/** Writes and enables the units. @returns their files */
export function installUnits(program: string): string[] {
  const files = unitFiles(program);
  installFiles(files);
  systemctl('daemon-reload');
  systemctl('enable', HOLD, RESUME);
  return [...files.keys()];
}

/** Disables and removes them. */
export function removeUnits(): void {
  systemctl('disable', HOLD, RESUME);
  for (const name of [HOLD, RESUME]) rmSync(`${FOLDER}/${name}`, { force: true });
  systemctl('daemon-reload');
}

/** Whether the next system will do it. */
export function unitsInstalled(): boolean {
  const isEnabled = (name: string) => attemptSystemctl('is-enabled', '--quiet', name) === undefined;
  return [HOLD, RESUME].every((name) => existsSync(`${FOLDER}/${name}`) && isEnabled(name));
}
