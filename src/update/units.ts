/**
 * What the next system does by itself, where it has systemd: packets of kept connections are held back before the network is up,
 * services go on by their own start, everything else when the machine has its addresses.
 */
import { spawnSync } from 'node:child_process';
import { existsSync, rmSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { UnsupportedError } from '../errors.ts';
import { PARAMETER } from './medium.ts';
import { RECORD_FILE } from './record.ts';
import { spillOf } from './workload.ts';

const FOLDER = '/etc/systemd/system';
const HOLD = 'tideover-hold.service';
const RESUME = 'tideover-resume.service';

/** One of both: memory that an earlier kernel left, or copies on the disk. */
const conditions = () =>
  `ConditionKernelCommandLine=|${PARAMETER}\nConditionDirectoryNotEmpty=|${dirname(spillOf('x'))}`;

/** Files of systemd.unit(5) by their names. @param program how tideover is started */
export function unitFiles(program: string): ReadonlyMap<string, string> {
  return new Map([
    [
      HOLD,
      `[Unit]
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
`,
    ],
    [
      RESUME,
      `[Unit]
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
`,
    ],
  ]);
}

/** Writes and enables the units. @returns their files */
export function installUnits(program: string): string[] {
  const files = unitFiles(program);
  for (const [name, text] of files) writeFileSync(`${FOLDER}/${name}`, text);
  systemctl('daemon-reload');
  systemctl('enable', ...files.keys());
  return [...files.keys()].map((name) => `${FOLDER}/${name}`);
}

/** Disables and removes them. */
export function removeUnits(): void {
  systemctl('disable', HOLD, RESUME);
  for (const name of [HOLD, RESUME]) rmSync(`${FOLDER}/${name}`, { force: true });
  systemctl('daemon-reload');
}

/** Whether the next system will do it. */
export function unitsInstalled(): boolean {
  return [HOLD, RESUME].every((name) => existsSync(`${FOLDER}/${name}`) && isEnabled(name));
}

function isEnabled(name: string): boolean {
  return spawnSync('systemctl', ['is-enabled', '--quiet', name], { stdio: 'ignore' }).status === 0;
}

function systemctl(...args: string[]): void {
  const { status, stderr, error } = spawnSync('systemctl', args, { encoding: 'utf8' });
  if (status === 0) return;
  const why = error?.message ?? stderr.trim();
  throw new UnsupportedError({ what: `systemctl ${args.join(' ')}`, why, remedy: 'see the journal' });
}
